"""Show, fetch and check the data sets. ``clusterprompt data --help``.

sources     addresses, checksums, and the entries to take out of an archive
fetch       one download: resumed, checked, never half there
unpack      one archive: refused if it reaches outside, all or nothing
inventory   which files are there, which are missing
prepare     the three above, until a data set is complete
descriptions  the official sentences about classes: what is there, fetching them
writing     sentences about own classes, by a language model that the user names
"""

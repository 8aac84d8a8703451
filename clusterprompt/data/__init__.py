"""Prepare the data sets: what is there, fetch the rest, open every image. ``clusterprompt data --help``.

sources     where each file comes from, its checksum, and what is taken out of an archive
fetch       one download: resumed, checked, never half there
unpack      one archive: refused if it reaches outside, all or nothing
inventory   what is there and what is missing
prepare     the three above, until a data set is complete
"""

"""Errors with plain messages. Each takes one message, so that it survives the way back from a DataLoader worker."""


class MissingFileError(FileNotFoundError, AssertionError):
    """A picture is not where the data set says. Dassl.pytorch raises AssertionError there, hence the second base."""


class ImageReadError(OSError):
    """A file exists but holds no readable picture."""


class ChoiceError(ValueError, AssertionError):
    """A name that is not among those on offer. Dassl.pytorch raises AssertionError there, hence the second base."""


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, or that would have to run code to be read."""

"""The files of a run: reading, writing, measuring."""

"""Data sets in CoOp's layout, one small file each."""

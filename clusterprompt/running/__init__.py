"""Carry out runs: one run, a plan of runs, whole protocols."""

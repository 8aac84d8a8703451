#!/usr/bin/env bash
# The HiCroPL trained on the environment's SOURCE, on another data set.   usage: bash scripts/hicropl/xd_test.sh TARGET SEED [--overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../protocol.sh" xd_test HiCroPL "$@"

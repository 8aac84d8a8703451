#!/usr/bin/env bash
# HiCroPL on all classes of a source.   usage: bash scripts/hicropl/xd_train.sh SOURCE SEED [--overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../protocol.sh" xd_train HiCroPL "$@"

#!/usr/bin/env bash
# MMA on all classes of a source.   usage: bash scripts/mma/xd_train.sh SOURCE SEED [--overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../protocol.sh" xd_train MMA "$@"

#!/usr/bin/env bash
# The TaskRes trained on the environment's SOURCE, on another data set.   usage: bash scripts/taskres/xd_test.sh TARGET SEED [--overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../protocol.sh" xd_test TaskRes "$@"

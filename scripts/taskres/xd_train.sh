#!/usr/bin/env bash
# TaskRes on all classes of a source.   usage: bash scripts/taskres/xd_train.sh SOURCE SEED [--overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../protocol.sh" xd_train TaskRes "$@"

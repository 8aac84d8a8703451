#!/usr/bin/env bash
# MMRL on few shots of all classes.   usage: bash scripts/mmrl/few_shot.sh DATASET SEED [--shots 1 2 4 8 16] [--overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../protocol.sh" few_shot MMRL "$@"

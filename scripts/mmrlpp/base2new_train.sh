#!/usr/bin/env bash
# MMRLpp from base to new.   usage: bash scripts/mmrlpp/base2new_train.sh DATASET SEED [--resume | --overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../base2new.sh" MMRLpp "$@"

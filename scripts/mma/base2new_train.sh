#!/usr/bin/env bash
# MMA from base to new.   usage: bash scripts/mma/base2new_train.sh DATASET SEED [--resume | --overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../base2new.sh" MMA "$@"

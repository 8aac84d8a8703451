#!/usr/bin/env bash
# ATPrompt from base to new.   usage: bash scripts/atprompt/base2new_train.sh DATASET SEED [--resume | --overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../base2new.sh" ATPrompt "$@"

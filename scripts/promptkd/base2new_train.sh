#!/usr/bin/env bash
# PromptKD from base to new.   usage: bash scripts/promptkd/base2new_train.sh DATASET SEED [--resume | --overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../base2new.sh" PromptKD "$@"

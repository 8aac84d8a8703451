#!/usr/bin/env bash
# CLIPLoRA from base to new.   usage: bash scripts/cliplora/base2new_train.sh DATASET SEED [--resume | --overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../base2new.sh" CLIPLoRA "$@"

#!/usr/bin/env bash
# Train on the base classes, test on base and new.   usage: bash scripts/base2new.sh TRAINER DATASET SEED [options]
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: $(basename "$0") TRAINER DATASET SEED [--resume | --overwrite] [KEY VALUE ...], for example: TAC shapes 1" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec "$PYTHON" -m clusterprompt base2new --trainer "$1" --dataset "$2" --seed "$3" "${@:4}"

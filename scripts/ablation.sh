#!/usr/bin/env bash
# What each part of a method is worth.   usage: bash scripts/ablation.sh METHOD DATASET [options of scripts/ablation.py]
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $(basename "$0") METHOD DATASET [KEY VALUE ...] [--seeds 1 2 3] [--only VARIANT ...] [--fresh], for example: TAC shapes" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec "$PYTHON" "$CHECKOUT/scripts/ablation.py" "$@"

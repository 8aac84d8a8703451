#!/usr/bin/env bash
# Compare all methods from base to new.   usage: bash scripts/compare.sh DATASET [--methods METHOD ...] [--seeds 1 2 3] [--fresh]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec "$PYTHON" "$CHECKOUT/scripts/compare.py" "$@"

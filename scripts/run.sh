#!/usr/bin/env bash
# Whole protocols: plan, run side by side, go on, show.   usage: bash scripts/run.sh --protocol all --trainers TAC CoOp --datasets shapes [options of scripts/run.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec "$PYTHON" "$CHECKOUT/scripts/run.py" "$@"

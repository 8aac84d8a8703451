#!/usr/bin/env bash
# Whole protocols, side by side.   usage: bash scripts/run.sh --protocol all --trainers TAC --datasets shapes [options of clusterprompt run]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec "$PYTHON" -m clusterprompt run "$@"

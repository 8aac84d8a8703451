#!/usr/bin/env bash
# What each part of a method is worth.   usage: bash scripts/ablation.sh TRAINER DATASET [options of clusterprompt ablation]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec "$PYTHON" -m clusterprompt ablation "$@"

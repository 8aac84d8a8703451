#!/usr/bin/env bash
# Compare all methods from base to new.   usage: bash scripts/compare.sh DATASET [options of clusterprompt compare]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec "$PYTHON" -m clusterprompt compare "$@"

#!/usr/bin/env bash
# The papers' tables from all finished runs.   usage: bash scripts/results.sh [FOLDER] [options of scripts/results.py], for example: output --html report.html
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
if [ $# -eq 0 ] || [[ "$1" == -* ]]; then
  set -- "${OUTPUT:-$CHECKOUT/output}" "$@"
fi
exec "$PYTHON" "$CHECKOUT/scripts/results.py" "$@"

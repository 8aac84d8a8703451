#!/usr/bin/env bash
# The papers' tables from all finished runs.   usage: bash scripts/results.sh [FOLDER] [options of clusterprompt results]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec "$PYTHON" -m clusterprompt results "$@"

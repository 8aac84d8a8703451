#!/usr/bin/env bash
# Set up once, then compare four methods on drawn data.   usage: bash scripts/demo.sh [options of clusterprompt demo]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec "$PYTHON" -m clusterprompt demo "$@"

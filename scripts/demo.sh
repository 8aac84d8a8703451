#!/usr/bin/env bash
# Set up once, then compare ZeroshotCLIP, CoOp, TAC and AttriPrompt on the embedded data.   usage: bash scripts/demo.sh [--fresh]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec "$PYTHON" "$CHECKOUT/scripts/demo.py" "$@"

#!/usr/bin/env bash
# Check and measure the GPU of this machine, in at most 8 minutes.   usage: bash scripts/gpu_check.sh [OUT] [options]
#
# --device cpu --geometry small goes through the same steps without a GPU; gpu_check.py --help lists the options.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
"$PYTHON" -c "import pytest" 2>/dev/null || "$PYTHON" -m pip install -q --disable-pip-version-check "pytest>=7.2"
exec "$PYTHON" "$CHECKOUT/scripts/gpu_check.py" "$@"

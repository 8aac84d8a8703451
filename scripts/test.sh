#!/usr/bin/env bash
# Set up once, then run the whole test suite.   usage: bash scripts/test.sh [pytest's options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$CHECKOUT"
if ! "$PYTHON" -c "import pytest" 2>/dev/null; then
  echo "Installing pytest"
  "$PYTHON" -m pip install -q "pytest>=7.2"
fi
exec "$PYTHON" -m pytest -q tests "$@"

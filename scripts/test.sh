#!/usr/bin/env bash
# Set up once, then run the tests.   usage: bash scripts/test.sh [--quick] [pytest's options]
#
# --quick leaves out the tests marked slow: everything else, in less than a minute.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$CHECKOUT"
if ! "$PYTHON" -c "import pytest, xdist" 2>/dev/null; then
  echo "Installing pytest"
  "$PYTHON" -m pip install -q "pytest>=7.2" "pytest-xdist>=3.5"
fi
QUICK=()
if [ "${1:-}" = --quick ]; then
  QUICK=(-m "not slow")
  shift
fi
# One process a core, at most four: each holds torch. A file's tests stay together, since they share what they set up.
PROCESSES="$("$PYTHON" -c "import os; print(min(4, os.cpu_count() or 1))")"
exec "$PYTHON" -m pytest -q --numprocesses "$PROCESSES" --dist loadfile ${QUICK[@]+"${QUICK[@]}"} "$@"

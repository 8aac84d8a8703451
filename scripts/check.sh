#!/usr/bin/env bash
# Check everything but behaviour: format, lint, types, layers, repetition, links of the docs.   usage: bash scripts/check.sh [--fix]
#
# --fix formats the files and repairs what ruff can repair before it checks. Tests are scripts/test.sh's business.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$CHECKOUT"

case "${1:-}" in
  "" | --fix) ;;
  *) echo "usage: bash scripts/check.sh [--fix]" >&2; exit 2 ;;
esac

# The tools in the versions that setup.py pins.
TOOLS="$(grep -oE '"(ruff|mypy)==[0-9.]+"' setup.py | tr -d '"')"
for tool in $TOOLS; do
  if [ "$("$PYTHON" -c "from importlib.metadata import version; print(version('${tool%%==*}'))" 2>/dev/null)" != "${tool##*==}" ]; then
    echo "Installing $tool"
    "$PYTHON" -m pip install -q --disable-pip-version-check "$tool" || _fail "could not install $tool into $PYTHON"
  fi
done
if ! "$PYTHON" -c "import pytest" 2>/dev/null; then
  echo "Installing pytest"
  "$PYTHON" -m pip install -q --disable-pip-version-check "pytest>=7.2" || _fail "could not install pytest into $PYTHON"
fi

FAILED=()
OUTPUT="$(mktemp)"
LINKS="$(mktemp -d)"
trap 'rm -rf "$OUTPUT" "$LINKS"' EXIT

# check "name" command ...: runs it; shows what it printed if it fails.
check() {
  local name="$1" started="$SECONDS" result=ok
  shift
  "$@" >"$OUTPUT" 2>&1 || result=FAILED
  printf '%-12s %-6s %3d s\n' "$name" "$result" "$((SECONDS - started))"
  if [ "$result" = FAILED ]; then
    FAILED+=("$name")
    sed 's/^/    /' "$OUTPUT"
  fi
}

# mypy looks for clusterprompt.trainers in clusterprompt/trainers/: show it the folders as they are installed.
types() {
  mkdir "$LINKS/clusterprompt"
  ln -s "$CHECKOUT"/clusterprompt/* "$LINKS/clusterprompt/"
  for wing in trainers datasets clip_patches configs; do ln -s "$CHECKOUT/$wing" "$LINKS/clusterprompt/$wing"; done
  (cd "$LINKS" && "$PYTHON" -m mypy --config-file "$CHECKOUT/pyproject.toml" --cache-dir "$CHECKOUT/.mypy_cache" -p clusterprompt)
}

STARTED="$SECONDS"
if [ "${1:-}" = --fix ]; then
  "$PYTHON" -m ruff check --fix-only --quiet .
  "$PYTHON" -m ruff format --quiet .
fi
check format "$PYTHON" -m ruff format --check --quiet .
check lint "$PYTHON" -m ruff check --output-format concise .
check types types
check layers "$PYTHON" -m pytest -q --no-header --noconftest -p no:cacheprovider tests/test_imports.py
check repetition "$PYTHON" -m pytest -q --no-header --noconftest -p no:cacheprovider tests/test_likeness.py
check docs "$PYTHON" -m pytest -q --no-header --noconftest -p no:cacheprovider tests/test_docs.py
check packaging "$PYTHON" -m pytest -q --no-header --noconftest -p no:cacheprovider tests/test_gates.py

printf 'total %17d s\n' "$((SECONDS - STARTED))"
if [ "${#FAILED[@]}" -gt 0 ]; then
  echo "failed: ${FAILED[*]}"
  exit 1
fi

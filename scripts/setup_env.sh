# Sourced by the other scripts: sets PYTHON to a Python in which this project runs.
#
# That is the active one if it has everything, else .venv in the checkout, which is made on the first call. Environment:
#   PYTHON=/path/to/python      the Python to look at, and to make .venv with (default: python, then python3)
#   DASSL=/path/to/Dassl.pytorch  run on real Dassl instead of the stand-in in toolbox/

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$CHECKOUT/.venv"
INSTALL_LOG="$VENV/install.log"

_fail() { echo "error: $*" >&2; exit 1; }

# Prints what a Python lacks, one line a package; nothing if it has everything. Looks for the packages without importing them.
_missing() {
  "$1" - "$CHECKOUT" <<'PYTHON' 2>/dev/null || echo "a working Python >= 3.10"
import importlib.util, pathlib, sys
assert sys.version_info >= (3, 10)
def folder(name):
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or []) if spec else []
    return pathlib.Path(places[0]) if places else None
for name in "torch torchvision numpy PIL yacs sklearn tabulate tqdm safetensors ftfy regex packaging dassl".split():
    if importlib.util.find_spec(name) is None:
        print(name)
clip = folder("clip")
if clip is None or not (clip / "model.py").is_file():
    print("clip (OpenAI's; the one installed is PyPI's clipboard tool)" if importlib.util.find_spec("clip") else "clip")
elif "pkg_resources" in (clip / "clip.py").read_text() and importlib.util.find_spec("pkg_resources") is None:
    print("setuptools<81 (the installed clip imports pkg_resources)")
ours = folder("clusterprompt")
if ours is None or ours.resolve() != pathlib.Path(sys.argv[1], "clusterprompt").resolve():
    print("clusterprompt (this checkout's)")
PYTHON
}

# _step "what it does" command ...: runs it quietly; shows the end of the log if it fails.
_step() {
  echo "  $1"
  shift
  if ! "$@" >>"$INSTALL_LOG" 2>&1; then
    tail -n 15 "$INSTALL_LOG" >&2
    _fail "this step failed; the whole log is $INSTALL_LOG. Run the same command again to go on from here."
  fi
}

# What the installation depends on; with another value, pip goes through the requirements again.
_fingerprint() { cat "$CHECKOUT/setup.py" "$CHECKOUT/toolbox/pyproject.toml" "$CHECKOUT/scripts/setup_env.sh" | cksum; }

_make_venv() {
  local base="$1" shared="" python="$VENV/bin/python"
  "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || _fail "$base is older than Python 3.10; name a newer one: PYTHON=..."
  if "$python" -m pip --version >/dev/null 2>&1; then
    echo "Bringing .venv up to date:"
  else
    # A torch that is there already, with its CUDA, is better than a second one of several GB.
    if [ -z "${VIRTUAL_ENV:-}" ] && "$base" -c 'import torch, torchvision' 2>/dev/null; then
      shared=--system-site-packages
      echo "Setting up .venv on top of the installed torch (once, about a minute):"
    else
      echo "Setting up .venv (once, 2 to 5 minutes and a few GB, nearly all of it torch):"
    fi
    "$base" -m venv --clear $shared "$VENV" || _fail "$base cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
  fi
  : >"$INSTALL_LOG"
  echo "  (what pip says goes to $INSTALL_LOG)"
  _step "build tools" "$python" -m pip install --disable-pip-version-check "setuptools>=64,<81" wheel
  _step "torch and the other requirements, and this checkout (editable)" \
    "$python" -m pip install --disable-pip-version-check --no-build-isolation -e "$CHECKOUT[test,tensorboard,pictures,data]"
  if _missing "$python" | grep -q '^clip'; then
    _step "OpenAI's CLIP" "$python" -m pip install --disable-pip-version-check --no-build-isolation --no-deps openai-clip
  fi
  if _missing "$python" | grep -q '^dassl'; then
    _step "the stand-in for Dassl (toolbox)" \
      "$python" -m pip install --disable-pip-version-check --no-build-isolation --no-deps -e "$CHECKOUT/toolbox"
  fi
  local left
  left="$(_missing "$python")"
  [ -z "$left" ] || _fail "after the installation still missing: $(echo $left). The log is $INSTALL_LOG."
  _fingerprint >"$VENV/clusterprompt.stamp"
  echo "  done: $(du -sh "$VENV" | cut -f1) in .venv; remove that folder to undo it"
}

_setup() {
  if [ -n "${DASSL:-}" ]; then
    [ -d "$DASSL/dassl" ] || _fail "DASSL=$DASSL holds no folder 'dassl'; it should name a checkout of Dassl.pytorch"
    DASSL="$(cd "$DASSL" && pwd)"
    export PYTHONPATH="$DASSL${PYTHONPATH:+:$PYTHONPATH}"
  fi
  local candidate base=""
  for candidate in ${PYTHON:-python python3}; do
    candidate="$(command -v "$candidate")" || continue
    candidate="$(cd "$(dirname "$candidate")" && pwd)/$(basename "$candidate")"
    base="${base:-$candidate}"
    if [ -z "$(_missing "$candidate")" ]; then
      PYTHON="$candidate"
      return
    fi
  done
  # Looked at on every call: a call with DASSL needs no stand-in, and a later one without does.
  if [ -x "$VENV/bin/python" ] && [ "$(_fingerprint)" = "$(cat "$VENV/clusterprompt.stamp" 2>/dev/null)" ] &&
    [ -z "$(_missing "$VENV/bin/python")" ]; then
    PYTHON="$VENV/bin/python"
    return
  fi
  [ -n "$base" ] || _fail "no Python found; install Python 3.10 or newer, or name one: PYTHON=/path/to/python"
  if _missing "$base" | grep -q clipboard; then
    echo "Note: the package 'clip' of $base is PyPI's clipboard tool, not OpenAI's CLIP; it is left as it is."
  fi
  _make_venv "$base"
  PYTHON="$VENV/bin/python"
}

_setup
export PYTHON
export CLUSTERPROMPT_HOME="${CLUSTERPROMPT_HOME:-$CHECKOUT}" # where data/ and output/ are looked for

#!/usr/bin/env bash
# Check that the methods of this checkout give the same numbers inside another one, on real Dassl.
#
# usage: bash tests/hosts/check.sh HOST_CHECKOUT DASSL
#
#   HOST_CHECKOUT  a checkout of CoOp, MaPLe, PromptSRC, or one built like them; it is copied, and left as it is
#   DASSL          a checkout of Dassl.pytorch (github.com/KaiyangZhou/Dassl.pytorch)
#
# Exit code 1: something differs, or does not run. Two or three minutes, on the CPU; nothing is fetched.
set -euo pipefail
DOOR="${BASH_SOURCE[0]}"
if [ $# != 2 ]; then
  sed -n 's/^# \{0,1\}//p' "$DOOR" >&2
  exit 2
fi
unset DASSL PYTHONPATH # this checkout's own runs use the stand-in
source "$(dirname "$DOOR")/../../scripts/setup_env.sh"
exec "$PYTHON" "$CHECKOUT/tests/hosts/check.py" "$1" "$2"

#!/usr/bin/env bash
# One step of a protocol, by clusterprompt run.   usage: bash scripts/protocol.sh xd_train|xd_test|few_shot TRAINER DATASET SEED [options]
#
#   xd_train   train on all classes of DATASET, the source
#   xd_test    test that model on DATASET, the target; its source is the environment's SOURCE (default: imagenet; shapes for drawn targets)
#   few_shot   train on all classes of DATASET with 1, 2, 4, 8 and 16 shots (--shots 4 16: with these) and test on all
set -euo pipefail
if [ $# -lt 4 ]; then
  echo "usage: $(basename "$0") xd_train|xd_test|few_shot TRAINER DATASET SEED [--overwrite] [KEY VALUE ...], for example: xd_train TAC shapes 1" >&2
  exit 2
fi
step="$1" trainer="$2" dataset="$3" seed="$4"
shift 4
case "$step" in
  xd_train) words=(--protocol cross_dataset --source "$dataset" --targets) ;;
  xd_test) words=(--protocol cross_dataset domain_generalisation --targets "$dataset" ${SOURCE:+--source "$SOURCE"}) ;;
  few_shot) words=(--protocol few_shot --datasets "$dataset") ;;
  *) echo "error: no step '$step'; there are xd_train, xd_test, few_shot" >&2; exit 2 ;;
esac
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" "${words[@]}" --trainers "$trainer" --seeds "$seed" "$@"

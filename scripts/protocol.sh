#!/usr/bin/env bash
# One step of a protocol, by scripts/run.py.   usage: bash scripts/protocol.sh xd_train|xd_test|few_shot TRAINER DATASET SEED [options of scripts/run.py]
#
#   xd_train   train on all classes of DATASET, the source
#   xd_test    test that model on DATASET, the target; its source is the environment's SOURCE (default: imagenet; shapes for embedded targets)
#   few_shot   train on all classes of DATASET with 1, 2, 4, 8 and 16 shots (--shots 4 16: with these) and test on all
set -euo pipefail
if [ $# -lt 4 ]; then
  echo "usage: $(basename "$0") xd_train|xd_test|few_shot TRAINER DATASET SEED [--fresh] [KEY VALUE ...], for example: xd_train TAC shapes 1" >&2
  exit 2
fi
step="$1" trainer="$2" dataset="$3" seed="$4"
shift 4
case "$dataset" in shapes*) source_set=shapes ;; *) source_set=imagenet ;; esac
case "$step" in
  xd_train) words=(--protocol cross_dataset --source "$dataset" --targets) ;;
  xd_test) words=(--protocol cross_dataset domain_generalisation --source "${SOURCE:-$source_set}" --targets "$dataset") ;;
  few_shot) words=(--protocol few_shot --datasets "$dataset") ;;
  *) echo "error: no step '$step'; there are xd_train, xd_test, few_shot" >&2; exit 2 ;;
esac
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" "${words[@]}" --trainers "$trainer" --seeds "$seed" "$@"

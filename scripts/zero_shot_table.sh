#!/usr/bin/env bash
# Zero-shot accuracy of the embedded CLIP on all embedded data sets (the model card's table).   usage: bash scripts/zero_shot_table.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$CHECKOUT"
output="${OUTPUT:-output}/zero_shot"
for dataset in shapes shapes_outline shapes_noise shapes_background shapes_lowres shapes_textures shapes_colours shapes_counts; do
  "$PYTHON" train.py --trainer ZeroshotCLIP --dataset-config-file "configs/datasets/$dataset.yaml" --config-file configs/trainers/ZeroshotCLIP/basetonovel.yaml \
    --backbone tiny --seed 1 --eval-only --output-dir "$output/$dataset" TRAINER.ZEROSHOTCLIP.PREC fp32 DATALOADER.NUM_WORKERS 0 >/dev/null
  "$PYTHON" - "$output/$dataset/result.json" <<'PYTHON'
import json, sys

record = json.load(open(sys.argv[1]))
print(f"{record['dataset']:20s} {len(record['classnames']):3d} classes   {record['accuracy']:.1f} %")
PYTHON
done

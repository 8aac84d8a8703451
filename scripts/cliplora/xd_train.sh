#!/usr/bin/env bash
# CLIPLoRA on all classes of a source.   usage: bash scripts/cliplora/xd_train.sh SOURCE SEED [--overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../protocol.sh" xd_train CLIPLoRA "$@"

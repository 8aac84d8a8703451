#!/usr/bin/env bash
# CLIPAdapter on all classes of a source.   usage: bash scripts/clipadapter/xd_train.sh SOURCE SEED [--overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../protocol.sh" xd_train CLIPAdapter "$@"

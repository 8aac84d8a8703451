#!/usr/bin/env bash
# What each part of TAC is worth.   usage: bash scripts/tac/ablation.sh DATASET [options of clusterprompt ablation]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../ablation.sh" TAC "$@"

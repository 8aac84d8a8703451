#!/usr/bin/env bash
# What each part of AttriPrompt is worth.   usage: bash scripts/attriprompt/ablation.sh DATASET [options of clusterprompt ablation]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../ablation.sh" AttriPrompt "$@"

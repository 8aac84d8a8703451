#!/usr/bin/env bash
# The PromptKD trained on the environment's SOURCE, on another data set.   usage: bash scripts/promptkd/xd_test.sh TARGET SEED [--overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../protocol.sh" xd_test PromptKD "$@"

#!/usr/bin/env bash
# AttriPrompt on all classes of a source.   usage: bash scripts/attriprompt/xd_train.sh SOURCE SEED [--overwrite] [KEY VALUE ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../protocol.sh" xd_train AttriPrompt "$@"

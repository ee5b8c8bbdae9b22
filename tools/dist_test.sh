#!/usr/bin/env bash
# Evaluate in several processes; each image is counted once:
#   bash tools/dist_test.sh configs/efficientdet/d0_coco.py work_dirs/d0_coco/epoch_300.pth 8
# All arguments after GPUS are passed to tools/test.py; see tools/dist_run.sh for several machines.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

if (($# < 3)); then
    echo 'usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]' >&2
    exit 2
fi

config="$1"
checkpoint="$2"
processes="$3"
shift 3
exec bash "$here/dist_run.sh" test.py "$processes" "$config" "$checkpoint" "$@"

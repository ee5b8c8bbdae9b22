#!/usr/bin/env bash
# Train in several processes:
#   bash tools/dist_train.sh 8                                              (D0 on COCO)
#   bash tools/dist_train.sh configs/efficientdet/d2_coco.py 8 --amp
# The default CONFIG is D0 on COCO. All arguments after GPUS are passed to tools/train.py; see
# tools/dist_run.sh for several machines.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
usage='usage: tools/dist_train.sh [CONFIG] GPUS [arguments of tools/train.py]'

if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
    config="$here/../configs/efficientdet/d0_coco.py"
elif (($# >= 2)); then
    config="$1"
    shift
else
    echo "$usage" >&2
    exit 2
fi

processes="$1"
shift
exec bash "$here/dist_run.sh" train.py "$processes" "$config" "$@"

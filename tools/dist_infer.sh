#!/usr/bin/env bash
# Detect objects in many files in several processes; the same files as tools/infer.py writes:
#   bash tools/dist_infer.sh 8 best.pth photos --out found
#   bash tools/dist_infer.sh 2 model.onnx 'photos/**/*.jpg' --out found        (on CPUs)
# All arguments after GPUS are those of tools/infer.py. The same command, given again after a
# call was stopped, does only what is missing. See tools/dist_run.sh for several machines, which share the --out folder.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

if (($# < 3)); then
    echo 'usage: tools/dist_infer.sh GPUS [CONFIG] MODEL INPUT... [arguments of tools/infer.py]' >&2
    exit 2
fi

exec bash "$here/dist_run.sh" infer.py "$@"

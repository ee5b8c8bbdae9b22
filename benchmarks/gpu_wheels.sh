#!/usr/bin/env bash
# Gather what benchmarks/gpu.sh needs beside torch and timm, for a machine that reaches no registry.
#
#   bash benchmarks/gpu_wheels.sh DIR          # here: 7 MB of wheels for Python 3.12 on Linux
#   python3 -m pip install --no-index --no-deps --target SITE DIR/*.whl    # there
#   PYTHONPATH=SITE PYTHON=python3 bash benchmarks/gpu.sh
#
# Versions are those of requirements/lock.txt and dev.txt. Nothing of the machine's own torch,
# numpy, OpenCV or timm is replaced.
set -euo pipefail
target=${1:?usage: gpu_wheels.sh DIR}
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
names='addict|mmcv-lite|mmdet|mmengine|platformdirs|pycocotools|shapely|termcolor|terminaltables|yapf'
names="$names|antlr4-python3-runtime|effdet|omegaconf"
mapfile -t wanted < <(grep -hE "^($names)==" requirements/lock.txt requirements/dev.txt)
mkdir -p "$target"
for one in "${wanted[@]}"; do
    if [[ $one == antlr4* ]]; then # only its source is published
        "$PYTHON" -m pip wheel -q --no-deps --no-build-isolation -w "$target" "$one"
    else
        "$PYTHON" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
            --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
            --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d "$target" "$one"
    fi
done
du -sh "$target"

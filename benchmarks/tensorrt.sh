#!/usr/bin/env bash
# Builds the engine of a file for TensorRT, runs it, and compares it with ONNX Runtime.
#
#   tools/export.py d0_coco d0.pth --format tensorrt --nms hard --score-thr 0.05 --out d0.onnx
#   bash benchmarks/tensorrt.sh d0.onnx IMAGES              # writes d0.engine; add fp16 for --fp16
#
# Needs trtexec (in NVIDIA's containers nvcr.io/nvidia/tensorrt), the GPU that the engine is for, and
# the extra `onnx` of this package. PYTHON chooses the interpreter, OUT the folder of the results.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: bash benchmarks/tensorrt.sh FILE.onnx IMAGES [fp32|fp16]" >&2
    exit 2
fi
file=$(realpath "$1") images=$(realpath "$2") precision=${3:-fp32}
cd "$(dirname "$0")/.."
OUT=${OUT:-work_dirs/tensorrt}
PYTHON=${PYTHON:-.venv/bin/python}
TRTEXEC=${TRTEXEC:-$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)}
if [ ! -x "$TRTEXEC" ]; then
    echo "error: no trtexec found: set TRTEXEC, or use a container nvcr.io/nvidia/tensorrt" >&2
    exit 2
fi
mkdir -p "$OUT"
call() { "$PYTHON" -c "
import sys
from pathlib import Path
from effdet_plugin.errors import UserError
from effdet_plugin.export import tensorrt_check
try:
    print($1)
except UserError as error:
    sys.exit(f'error: {error}')
" "${@:2}"; }

shape=$(call "tensorrt_check.prepare(*map(Path, sys.argv[1:]))" "$file" "$images" "$OUT" | tail -n 1)
one="1x${shape#*x}"
engine="${file%.onnx}.engine"
flags=()
[ "$precision" = fp16 ] && flags=(--fp16)
# Batches of 1 to 16; the batch of the check is the one it is tuned for.
"$TRTEXEC" --onnx="$file" --saveEngine="$engine" --minShapes=images:"$one" \
    --optShapes=images:"$shape" --maxShapes=images:"16x${shape#*x}" --skipInference "${flags[@]}" \
    > "$OUT/build.log"
"$TRTEXEC" --loadEngine="$engine" --shapes=images:"$shape" --loadInputs=images:"$OUT/images.bin" \
    --exportOutput="$OUT/answer.json" --iterations=1 --warmUp=0 --duration=0 > "$OUT/answer.log"
call "tensorrt_check.compare(*map(Path, sys.argv[1:4]), sys.argv[4])" \
    "$file" "$OUT/answer.json" "$OUT" "$precision"
"$TRTEXEC" --loadEngine="$engine" --shapes=images:"$one" --useCudaGraph --noDataTransfers \
    > "$OUT/time.log"
grep -E 'Throughput|GPU Compute Time' "$OUT/time.log"
echo "$engine"

#!/usr/bin/env bash
# Everything that needs a GPU, in one run of about 8 minutes; figures as JSON, as they come.
#
#   bash benchmarks/gpu.sh                       # writes to $OUT, else work_dirs/gpu
#   DEVICE=cpu bash benchmarks/gpu.sh --smoke    # the same commands, small, to try the script
#
# A step that fails is named at the end; the others still run. PYTHON chooses the interpreter. Where
# packages are missing: benchmarks/gpu_wheels.sh.
set -uo pipefail
cd "$(dirname "$0")/.."
DEVICE=${DEVICE:-cuda}
OUT=${OUT:-work_dirs/gpu}
PYTHON=${PYTHON:-.venv/bin/python}
SMOKE=0
[ "${1:-}" = --smoke ] && SMOKE=1
mkdir -p "$OUT"
failed=()

# step NAME SECONDS COMMAND...: runs it with a time limit; its output goes to $OUT/NAME.log.
step() {
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    if timeout "$limit" "$@" > "$OUT/$name.log" 2>&1; then
        echo "$name: done in $((SECONDS - start)) s"
    else
        echo "$name: FAILED after $((SECONDS - start)) s"
        tail -n 3 "$OUT/$name.log"
        failed+=("$name")
    fi
}

# NETWORK: forms that are timed. Compiled takes a minute, so only of D0.
network() {
    local name=$1
    shift
    step "network_$name" "$limit" "$PYTHON" tools/benchmark.py network "$name" none \
        --device "$DEVICE" --forms "$@" "${rounds[@]}" "${size[@]}" \
        --json "$OUT/network_$name.json" "${plain[@]}"
}

limit=100
rounds=(--rounds 20 --batch 1 8)
train=(--rounds 10 --batch 64)
size=()
networks=(d4_coco d7x_coco)
small=d0_coco large=d7x_coco
if [ "$SMOKE" = 1 ]; then
    limit=240
    rounds=(--rounds 1 --batch 1)
    train=(--rounds 1 --batch 2)
    size=(--image-size 128)
    networks=()
    small=lite0_coco large=lite0_coco
fi
plain=(--cfg-options model.backbone.pretrained=False)
measure=("$PYTHON" tools/benchmark.py)

step env 60 "$PYTHON" -m effdet_plugin.env
step tests 60 "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu tests
if [ "$SMOKE" = 1 ]; then network $small eager fast; else network $small eager fast fp16 compiled; fi
for name in "${networks[@]}"; do
    network "$name" fast fp16
done
step train "$limit" "${measure[@]}" train $small none --device "$DEVICE" --against effdet \
    --forms channels_last bf16 "${train[@]}" "${size[@]}" --json "$OUT/train.json" "${plain[@]}"
step memory "$limit" "${measure[@]}" memory $large none --device "$DEVICE" --rounds 2 --batch 1 \
    --forms channels_last recompute checkpoint "${size[@]}" --json "$OUT/memory.json" "${plain[@]}"
step postprocess 60 "${measure[@]}" postprocess $small none --device "$DEVICE" --against effdet \
    "${rounds[@]}" "${size[@]}" --json "$OUT/postprocess.json" "${plain[@]}"
step end2end 60 "${measure[@]}" end2end $small none --device "$DEVICE" --forms eager fast \
    "${rounds[@]}" "${size[@]}" --json "$OUT/end2end.json" "${plain[@]}"

if [ "${#failed[@]}" -gt 0 ]; then
    echo "failed: ${failed[*]} (logs in $OUT)"
    exit 1
fi
echo "figures: $OUT"

#!/usr/bin/env bash
# Everything that needs a GPU, in one run of under 15 minutes; figures as JSON, as they come.
#
#   bash benchmarks/gpu.sh                       # writes to $OUT, else work_dirs/gpu
#   DEVICE=cpu bash benchmarks/gpu.sh --smoke    # the same commands, small, to try the script
#
# A step that fails is named at the end; the others still run. PYTHON chooses the interpreter.
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

forms=(eager channels_last fast fp16 compiled)
networks=(d0_coco d2_coco)
rounds=(--rounds 30)
size=()
if [ "$SMOKE" = 1 ]; then
    forms=(eager fast)
    networks=(lite0_coco)
    rounds=(--rounds 1 --batch 1)
    size=(--image-size 128)
fi
plain=(--cfg-options model.backbone.pretrained=False)

step env 120 "$PYTHON" -m effdet_plugin.env
step tests 240 "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu tests
for name in "${networks[@]}"; do
    step "network_$name" 240 "$PYTHON" tools/benchmark.py network "$name" none --device "$DEVICE" \
        --forms "${forms[@]}" "${rounds[@]}" "${size[@]}" --json "$OUT/network_$name.json" "${plain[@]}"
    step "end2end_$name" 120 "$PYTHON" tools/benchmark.py end2end "$name" none --device "$DEVICE" \
        --forms eager fast "${rounds[@]}" "${size[@]}" --json "$OUT/end2end_$name.json" "${plain[@]}"
done
step train 180 "$PYTHON" tools/benchmark.py train "${networks[0]}" none --device "$DEVICE" \
    --forms eager channels_last bf16 "${rounds[@]}" "${size[@]}" --json "$OUT/train.json" "${plain[@]}"

if [ "${#failed[@]}" -gt 0 ]; then
    echo "failed: ${failed[*]} (logs in $OUT)"
    exit 1
fi
echo "figures: $OUT"

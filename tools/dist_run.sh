#!/usr/bin/env bash
# Run a tool in several processes: bash tools/dist_run.sh TOOL GPUS [arguments of the tool]
# Called by tools/dist_train.sh, dist_test.sh and dist_infer.sh. The processes communicate over NCCL on GPUs,
# over gloo on a machine without a GPU: GPUS is the number of processes on this machine.
#
# For several machines run it on each of them, as in mmdet, with: NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500
# PYTHON sets the Python interpreter; the default is torchrun on PATH, else the Python of .venv.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
tool="$1"
processes="$2"
shift 2

if [[ ! "$processes" =~ ^[1-9][0-9]*$ ]]; then
    echo "error: GPUS must be a number of processes, not '$processes'" >&2
    exit 2
fi

if [[ -n "${PYTHON:-}" ]]; then
    torchrun=("$PYTHON" "$root/tools/_torchrun.py")
elif found="$(command -v torchrun)"; then
    python="$(dirname "$found")/python"
    [[ -x "$python" ]] && torchrun=("$python" "$root/tools/_torchrun.py") || torchrun=(torchrun)
elif [[ -x "$root/.venv/bin/python" ]]; then
    torchrun=("$root/.venv/bin/python" "$root/tools/_torchrun.py")
else
    echo "error: no torchrun on PATH and no .venv here; bash tools/setup.sh makes one" >&2
    exit 2
fi

nodes="${NNODES:-1}"
# Two runs on one machine need two ports; several machines need the same one.
[[ "$nodes" == 1 ]] && free_port=$((29500 + RANDOM % 2000)) || free_port=29500

exec "${torchrun[@]}" \
    --nnodes="$nodes" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-$free_port}" \
    --nproc_per_node="$processes" \
    "$root/tools/$tool" "$@" --launcher pytorch

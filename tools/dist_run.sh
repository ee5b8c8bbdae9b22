#!/usr/bin/env bash
# One tool in several processes: bash tools/dist_run.sh TOOL GPUS [arguments of the tool]
# What tools/dist_train.sh and tools/dist_test.sh share. On GPUs the processes talk over NCCL, on a
# machine without one over gloo: GPUS is the number of processes on this machine.
#
# Several machines, as with mmdet, on each of them: NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500
# PYTHON chooses the Python; otherwise torchrun is the one on PATH, or that of this clone's .venv.
#
# The exit code is torchrun's, but 2 where a process has said 'error: ...', which the last line repeats.
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
    torchrun=("$PYTHON" -m torch.distributed.run)
elif command -v torchrun > /dev/null; then
    torchrun=(torchrun)
elif [[ -x "$root/.venv/bin/python" ]]; then
    torchrun=("$root/.venv/bin/python" -m torch.distributed.run)
else
    echo "error: no torchrun on PATH and no .venv here; bash tools/setup.sh makes one" >&2
    exit 2
fi

nodes="${NNODES:-1}"
# Two runs on one machine must not meet; several machines must agree.
[[ "$nodes" == 1 ]] && free_port=$((29500 + RANDOM % 2000)) || free_port=29500

# How many GPUs the processes will see; nothing where only starting Python would tell.
visible_gpus() {
    local there=0 chosen="${CUDA_VISIBLE_DEVICES-unset}"
    if command -v nvidia-smi > /dev/null; then
        there="$(nvidia-smi -L 2> /dev/null | grep -c '^GPU ' || true)"
    elif compgen -G '/dev/nvidia[0-9]*' > /dev/null || [[ -e /dev/kfd || -e /dev/dxg ]]; then
        return 0
    fi
    if ((there > 0)) && [[ "$chosen" != unset ]]; then
        there=0
        [[ -z "$chosen" || "$chosen" == -1* ]] || there="$(awk -F, '{ print NF }' <<< "$chosen")"
    fi
    echo "$there"
}

gpus="$(visible_gpus)"
if [[ "$gpus" == 0 ]]; then
    echo "no GPU: $processes process$([[ "$processes" == 1 ]] || echo es) on CPUs" >&2
elif [[ -n "$gpus" ]] && ((processes > gpus)); then
    echo "warning: GPUS is $processes, but $gpus can be seen here (CUDA_VISIBLE_DEVICES counts)" >&2
fi

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
mkfifo "$folder/stderr"
# What torchrun says while it stops its processes must still find a reader after Ctrl-C.
(trap '' INT TERM HUP QUIT && exec tee "$folder/seen" < "$folder/stderr" >&2) &
reader=$!
exec 3> "$folder/stderr" # here, so that the reader ends even where torchrun never begins

# A signal goes on to torchrun, which stops its processes before it ends.
signalled=''
child=''
pass_on() {
    signalled="$1"
    [[ -z "$child" ]] || kill -s "$1" -- "-$child" 2> /dev/null || true
}
for signal in INT TERM HUP QUIT; do
    # shellcheck disable=SC2064
    trap "pass_on $signal" "$signal"
done

# In a process group of its own (-m): a shell makes its background processes deaf to Ctrl-C
# otherwise, and the terminal would send it to torchrun a second time, in the midst of stopping.
set -m
"${torchrun[@]}" \
    --nnodes="$nodes" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-$free_port}" \
    --nproc_per_node="$processes" \
    "$root/tools/$tool" "$@" --launcher pytorch 2>&3 3>&- &
child=$!
set +m
exec 3>&-
[[ -z "$signalled" ]] || pass_on "$signalled"

code=0
wait "$child" || code=$?
while kill -0 "$child" 2> /dev/null; do # a signal ends the wait, not torchrun
    code=0
    wait "$child" || code=$?
done
for _ in {1..50}; do # not for ever: something that torchrun has left behind may hold it open
    kill -0 "$reader" 2> /dev/null || break
    sleep 0.1
done

reason="$(grep -m 1 -E "^(${tool/./\\.}: )?error: " "$folder/seen" || true)"
if ((code != 0)) && [[ -z "$signalled" && -n "$reason" ]]; then
    before="${reason%%error: *}"
    echo "error: $tool failed; the first line that begins with '${before}error:' says why:" \
        "${reason#"$before"error: }" >&2
    exit 2
fi
exit "$code"

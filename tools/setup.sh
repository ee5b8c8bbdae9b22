#!/usr/bin/env bash
# Create .venv in this clone from requirements/: torch first, then the locked packages. Nothing is compiled.
#
#   bash tools/setup.sh          the packages for training and inference
#   bash tools/setup.sh --dev    those, and the packages for tests and linters
#   bash tools/setup.sh --mediapipe    MediaPipe alone, to try .tflite files as devices run them: its Python
#                                package in .venv-mediapipe (650 MB), its web runtime in docs/demo/assets (40 MB)
#
# A second call only compares checksums. pip's own settings (index, mirrors, proxies) are honoured.
# Environment variables:
#   PYTHON                  the Python (3.11 or later) to create .venv with
#   EFFDET_TORCH_PIP_ARGS   further pip arguments for torch and torchvision, such as the index of a CUDA version
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
py=$venv/bin/python
unfinished=$venv/.effdet-unfinished
cpu_index=https://download.pytorch.org/whl/cpu

say() { printf 'set-up: %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

# The stamp of a part is the checksum of its inputs and of its path: a .venv cannot be moved.
stamp() { (echo "$root"; cat "$root/tools/setup.sh" "${@/#/$root/requirements/}") | cksum; }
is_done() { [ -x "$py" ] && [ ! -e "$unfinished" ] && [ "$(cat "$venv/.effdet-$1" 2>/dev/null)" = "$(stamp "${@:2}")" ]; }
mark_done() { stamp "${@:2}" > "$venv/.effdet-$1"; }

base_is_done() { is_done base torch.txt lock.txt; }
dev_is_done() { is_done dev torch.txt lock.txt dev.txt; }

# Quiet but for errors. "Location ... is ignored" only says that one of several sources lacks a name.
pip() { PIP_USER=0 "$py" -m pip --disable-pip-version-check "$@" 2> >(grep -v "is ignored: it is neither" >&2); }

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python3.12 python3.13 python; do
    # Old ones lack locked wheels; without ensurepip (Debian: package python3-venv) no venv has pip.
    if "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
    if [ -n "${PYTHON:-}" ]; then break; fi
  done
  fail "no Python 3.11 or later with venv found; install one (Debian: python3.11-venv) or set PYTHON"
}

# An interrupted pip leaves packages that it takes for installed: their list of files is missing.
is_damaged() {
  ! "$py" -m pip --version >/dev/null 2>&1 || "$py" - <<'PYTHON'
import sys
from importlib.metadata import distributions
whole = all(d.files and all(f.locate().exists() for f in d.files if f.suffix != '.pyc')
            for d in distributions() if d.metadata['Name'])
sys.exit(whole)
PYTHON
}

make_venv() {
  if [ -x "$py" ] && { [ ! -e "$unfinished" ] || ! is_damaged; }; then return; fi
  local python
  python=$(find_python)
  say "creating .venv with $("$python" --version)"
  if [ -e "$venv" ]; then "$python" -m venv --clear "$venv"; else "$python" -m venv "$venv"; fi
}

has_nvidia_gpu() { [ -e /proc/driver/nvidia/version ] || nvidia-smi -L >/dev/null 2>&1; }
# Only there does the package index hold the CUDA build under the plain name.
default_torch_is_cuda() { [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ]; }
pip_finds_cpu_torch() { pip index versions torch 2>/dev/null | grep -q "[ ,]$1+cpu"; }
# The alarm ends the process after 3 s in all, name look-up included.
cpu_index_answers() {
  "$py" -c 'import signal, sys, urllib.request as u; signal.alarm(3); u.urlopen(sys.argv[1])' \
    "$cpu_index/torch/" >/dev/null 2>&1
}

# torch and torchvision come from the same index: the operators of torchvision's default build (CUDA)
# do not load into a CPU build of torch. The arguments are kept for a second call.
install_torch() {
  local wanted arguments=${EFFDET_TORCH_PIP_ARGS:-}
  wanted=$(sed -n 's/^torch==//p' "$root/requirements/torch.txt")
  if "$py" -c 'import torch' 2>/dev/null; then
    say "torch: $("$py" -c 'import torch; print(torch.__version__)'), already there"
    grep -v '^torch==' "$root/requirements/torch.txt" > "$venv/torch-needs.txt"
    pip install -q --no-deps -r "$venv/torch-needs.txt"
    return
  fi
  if [ -n "$arguments" ]; then
    say "torch $wanted, with EFFDET_TORCH_PIP_ARGS=$arguments"
  elif has_nvidia_gpu || ! default_torch_is_cuda; then
    say "torch $wanted, the default build"
  elif pip_finds_cpu_torch "$wanted"; then
    say "torch $wanted, the CPU build that pip finds here (about 200 MB)"
  elif cpu_index_answers; then
    say "torch $wanted, PyTorch's CPU build (no NVIDIA GPU here; about 200 MB)"
    arguments="--extra-index-url $cpu_index"
  else
    say "torch $wanted with CUDA (about 3 GB): pip finds no CPU build" \
      "(EFFDET_TORCH_PIP_ARGS can name one)"
  fi
  printf '%s' "$arguments" > "$venv/.effdet-torch-arguments"
  # shellcheck disable=SC2086  # several arguments on purpose
  pip install $quiet $arguments -r "$root/requirements/torch.txt"
}

# Where that index has no torchvision, the lock installs the default build, and effdet_plugin.compat
# stands in for its operators.
install_torchvision() {
  local arguments=${EFFDET_TORCH_PIP_ARGS:-$(cat "$venv/.effdet-torch-arguments" 2>/dev/null)}
  if [ -z "$arguments" ]; then return; fi
  # shellcheck disable=SC2086  # several arguments on purpose
  pip install -q --no-deps $arguments "$(grep '^torchvision==' "$venv/lock.txt")" 2>/dev/null ||
    say "no torchvision from the index of torch: the default build, without its compiled operators"
}

# Every torch has one torchvision: its minor version is torch's plus 15.
fitting_lock() {
  local torch
  torch=$("$py" -c 'from importlib.metadata import version as v; print(v("torch").split("+")[0])')
  if grep -q "^torch==$torch\$" "$root/requirements/torch.txt"; then
    cat "$root/requirements/lock.txt"
  else
    sed "s/^torchvision==.*/torchvision==0.$(($(echo "$torch" | cut -d. -f2) + 15)).*/" "$root/requirements/lock.txt"
  fi
}

install_base() {
  install_torch
  say "the OpenMMLab stack, timm and their dependencies (about 200 MB)"
  fitting_lock > "$venv/lock.txt"
  install_torchvision
  pip install -q --no-deps -r "$venv/lock.txt"
  "$py" -c 'import sys, sysconfig; from pathlib import Path
Path(sysconfig.get_path("purelib"), "effdet_plugin.pth").write_text(sys.argv[1] + "\n")' "$root"
}

install_dev() {
  say "packages for tests and linters"
  pip install -q --no-deps --no-build-isolation -r "$root/requirements/dev.txt"
}

# MediaPipe wants an OpenCV of its own, so it has an environment of its own.
install_mediapipe() {
  local place=$root/.venv-mediapipe assets=$root/docs/demo/assets pinned scratch
  if [ "$(cat "$place/.effdet-mediapipe" 2>/dev/null)" != "$(stamp mediapipe.txt)" ]; then
    local python
    python=$(find_python)
    say "MediaPipe in .venv-mediapipe (650 MB) with $("$python" --version)"
    rm -rf "$place"
    "$python" -m venv "$place"
    PIP_USER=0 "$place/bin/python" -m pip --disable-pip-version-check install -q -r "$root/requirements/mediapipe.txt"
    stamp mediapipe.txt > "$place/.effdet-mediapipe"
  fi
  pinned=$(sed -n 's/^# npm: //p' "$root/requirements/mediapipe.txt")
  if [ "$(cat "$assets/version.txt" 2>/dev/null)" = "$pinned" ]; then return; fi
  command -v npm >/dev/null || fail "npm not found: install it (Debian: npm) for the demo's web runtime"
  say "$pinned in docs/demo/assets"
  scratch=$(mktemp -d "$root/docs/demo/.assets.XXXXXX")
  (cd "$scratch" && npm pack --silent "$pinned" > name.txt && tar -xzf "$(cat name.txt)" &&
    mv package/wasm package/vision_bundle.mjs . && rm -r package ./*.tgz name.txt &&
    chmod -R u=rwX,go=rX . && echo "$pinned" > version.txt) || { rm -rf "$scratch"; fail "npm cannot fetch $pinned"; }
  rm -rf "$assets"
  mv "$scratch" "$assets"
}

dev=
case "${1:-}" in
  '') ;;
  --dev) dev=yes ;;
  --mediapipe) install_mediapipe; exit 0 ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; case "$1" in -h | --help) exit 0 ;; *) exit 2 ;; esac ;;
esac
if base_is_done && { [ -z "$dev" ] || dev_is_done; }; then exit 0; fi

if command -v flock >/dev/null; then
  exec 9> "$root/.setup.lock"
  flock -n 9 || { say 'waiting for another set-up of this clone'; flock 9; }
fi
quiet=-q
if [ -t 1 ]; then quiet=; fi # a person sees pip's progress on the one large download
SECONDS=0
make_venv
touch "$unfinished"
if [ "$(cat "$venv/.effdet-base" 2>/dev/null)" != "$(stamp torch.txt lock.txt)" ]; then
  install_base
  mark_done base torch.txt lock.txt
fi
if [ -n "$dev" ]; then
  install_dev
  mark_done dev torch.txt lock.txt dev.txt
fi
say "checking imports"
"$py" -W ignore -c 'import cv2, mmcv, mmdet, mmengine, pycocotools, torch' ||
  fail "the installed packages cannot be imported; rm -r $venv and try again"
rm -f "$unfinished"
say "done in $SECONDS s: $venv"

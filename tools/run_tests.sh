#!/usr/bin/env bash
# Set-up, linters (ruff check, ruff format, mypy) and tests; arguments go to pytest:
#
#   bash tools/run_tests.sh                                  all tests, in two processes
#   bash tools/run_tests.sh tests/test_compat.py -k nms      those of a file, in one process
#   bash tools/run_tests.sh -n 0                             all tests, in one process
#   bash tools/run_tests.sh --export     only the tests of exported files; installs their runtimes first
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh --dev
# More threads than cores slow down small tensors, and every worker process starts its own.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
if [ "${1:-}" = --export ]; then
  shift
  export_stamp=.venv/.effdet-export
  if [ "$(cat "$export_stamp" 2>/dev/null)" != "$(cksum < requirements/export.txt)" ]; then
    # torch and numpy stay: a resolver would replace the CPU build of torch by another one.
    .venv/bin/python -m pip freeze | grep -E '^(torch|torchvision|numpy)==' > .venv/export-constraints.txt
    .venv/bin/python -m pip install -q --disable-pip-version-check \
      -c .venv/export-constraints.txt -r requirements/export.txt
    cksum < requirements/export.txt > "$export_stamp"
  fi
  exec .venv/bin/python -m pytest -m export "$@"
fi
status=0
.venv/bin/ruff check --quiet --output-format concise . || status=1
.venv/bin/ruff format --check --quiet . || { echo 'ruff format: run .venv/bin/ruff format .' >&2; status=1; }
.venv/bin/mypy || status=1
# All tests are shared out to two processes; a file or two are done before the second one has started.
# worksteal: each begins with one half in its order, so that few fixtures are made in both.
workers=(-n 2 --dist worksteal)
for argument in "$@"; do
  if [ -e "${argument%%::*}" ]; then workers=(); fi
done
.venv/bin/python -m pytest -m 'not export' "${workers[@]}" "$@" || status=$?
exit $status

#!/usr/bin/env bash
# Set-up, linters (ruff check, ruff format, mypy) and tests; arguments go to pytest:
#
#   bash tools/run_tests.sh
#   bash tools/run_tests.sh tests/test_compat.py -k nms
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh --dev
# More threads than cores slow down small tensors, and every worker process starts its own.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
status=0
.venv/bin/ruff check --quiet --output-format concise . || status=1
.venv/bin/ruff format --check --quiet . || { echo 'ruff format: run .venv/bin/ruff format .' >&2; status=1; }
.venv/bin/mypy || status=1
.venv/bin/python -m pytest "$@" || status=$?
exit $status

#!/usr/bin/env bash
# Set-up, the linter and the tests; arguments go to pytest:
#
#   bash tools/run_tests.sh
#   bash tools/run_tests.sh tests/test_compat.py -k nms
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh --dev
# More threads than cores make small tensors slower, and several workers each want theirs.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
status=0
.venv/bin/ruff check --quiet --output-format concise . || status=1
.venv/bin/python -m pytest "$@" || status=$?
exit $status

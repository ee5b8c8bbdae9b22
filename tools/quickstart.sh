#!/usr/bin/env bash
# From a fresh clone to a trained detector in a few minutes, without a GPU: runs tools/setup.sh, then
# tools/quickstart.py with the arguments.
#
#   bash tools/quickstart.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh
exec .venv/bin/python -W ignore tools/quickstart.py "$@"

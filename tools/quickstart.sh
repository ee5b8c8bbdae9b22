#!/usr/bin/env bash
# From a fresh clone to a trained detector in some minutes, without a GPU:
# set-up, then tools/quickstart.py, which takes the arguments.
#
#   bash tools/quickstart.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh
exec .venv/bin/python -W ignore tools/quickstart.py "$@"

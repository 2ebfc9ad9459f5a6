#!/usr/bin/env bash
# Make .venv from the hashed lock, with the touchfold command in it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "touchfold needs Python 3.11 or newer; this is $("$python" --version). Set PYTHON=/path/to/python3.11." >&2; exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  echo "python3-venv is missing: install it (Debian: apt-get update && apt-get install -y python3-venv) and run again." >&2; exit 1
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
bash tools/analytics_js.sh
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .

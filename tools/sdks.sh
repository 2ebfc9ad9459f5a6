#!/usr/bin/env bash
# Fetch the SDKs that tests/sdks tries into a cache outside the checkout, and print where they are. The lock files hold
# versions and hashes, no addresses: npm and pip ask the registries they are set up with.
set -euo pipefail
cd "$(dirname "$0")/../tests/sdks"
sum=$(cat package.json package-lock.json requirements.txt | sha256sum | cut -c1-16)
to=${XDG_CACHE_HOME:-$HOME/.cache}/touchfold/sdks-$sum
if [ ! -e "$to/complete" ]; then
  if ! command -v npm >/dev/null || ! node -e 'process.exit(+(process.versions.node.split(".")[0] < 20))'; then
    echo "the tests of SDKs need Node 20 or newer, with npm" >&2; exit 1
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  cp package.json package-lock.json "$work"
  (cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --silent) >&2
  ../../.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
    --target "$work/python" -r requirements.txt >&2
  touch "$work/complete"
  mkdir -p "$(dirname "$to")"
  rm -rf "$to"
  mv -T "$work" "$to" 2>/dev/null || [ -e "$to/complete" ]
fi
echo "$to"

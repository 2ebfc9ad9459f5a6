#!/usr/bin/env bash
# Fetch Segment's script for browsers, analytics.js (MIT), with npm into a folder that git ignores. Without npm, or
# where its registry cannot be reached, the door says at the script's address what to do; all else works without it.
set -euo pipefail
cd "$(dirname "$0")/.."
version=1.84.3
sum=f571d06c2c4de79fbb27b04696b2128294d09e3c057a5adc974ebed790b8d7ba
to=${1:-infra/drivers/http/analytics_js}
[ "$(cat "$to/VERSION" 2>/dev/null)" = "$version" ] && exit 0
if ! command -v npm >/dev/null; then
  echo "analytics.js is not fetched: npm is missing (see docs/sdks.md, \"The script for browsers\")" >&2; exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! npm pack "@segment/analytics-next@$version" --silent --pack-destination "$work" >/dev/null; then
  echo "analytics.js is not fetched: npm cannot get @segment/analytics-next $version" >&2; exit 0
fi
file=$(echo "$work"/*.tgz)
echo "$sum  $file" | sha256sum --check --quiet || { echo "analytics.js: not the file that was reviewed" >&2; exit 1; }
tar -xzf "$file" -C "$work"
rm -rf "$to" && mkdir -p "$to"
cp "$work"/package/dist/umd/standalone.js "$to/analytics.min.js"
cp "$work"/package/dist/umd/*.bundle.*.js "$to"
cp "$work"/package/LICENSE.MD "$to/LICENSE"
cp "$work"/package/src/vendor/tsub/tsub.js.LICENSE.txt "$to/LICENSE-tsub"
echo "$version" >"$to/VERSION"

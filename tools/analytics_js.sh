#!/usr/bin/env bash
# Fetch the scripts for browsers that the door serves, Segment's analytics.js and Jitsu's p.js (both MIT), with npm into
# a folder that git ignores. Without npm, or where its registry cannot be reached, the door says at their addresses what
# to do; all else works without them.
set -euo pipefail
cd "$(dirname "$0")/.."
segment=1.84.3 segment_sum=f571d06c2c4de79fbb27b04696b2128294d09e3c057a5adc974ebed790b8d7ba
jitsu=1.11.0 jitsu_sum=e330c300b080d0b2c9ba85a204d52d56d06590989b4c7bc78776621b3fc45903
to=${1:-infra/drivers/http/analytics_js}
versions="@segment/analytics-next $segment, @jitsu/js $jitsu"
[ "$(cat "$to/VERSIONS" 2>/dev/null)" = "$versions" ] && exit 0
if ! command -v npm >/dev/null; then
  echo "analytics.js is not fetched: npm is missing (see docs/sdks.md, \"The script for browsers\")" >&2; exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() {  # package, version, SHA-256, folder
  mkdir "$work/$4"
  if ! npm pack "$1@$2" --silent --pack-destination "$work/$4" >/dev/null; then
    echo "analytics.js is not fetched: npm cannot get $1 $2" >&2; exit 0
  fi
  echo "$3  $(echo "$work/$4"/*.tgz)" | sha256sum --check --quiet || { echo "$1: not the file that was reviewed" >&2; exit 1; }
  tar -xzf "$work/$4"/*.tgz -C "$work/$4"
}

fetch @segment/analytics-next "$segment" "$segment_sum" segment
fetch @jitsu/js "$jitsu" "$jitsu_sum" jitsu
rm -rf "$to" && mkdir -p "$to"
cp "$work"/segment/package/dist/umd/standalone.js "$to/analytics.min.js"
cp "$work"/segment/package/dist/umd/*.bundle.*.js "$to"
cp "$work"/segment/package/LICENSE.MD "$to/LICENSE-segment"
cp "$work"/segment/package/src/vendor/tsub/tsub.js.LICENSE.txt "$to/LICENSE-tsub"
cp "$work"/jitsu/package/dist/web/p.js.txt "$to/p.js"
cp "$work"/jitsu/package/LICENSE "$to/LICENSE-jitsu"
echo "$versions" >"$to/VERSIONS"

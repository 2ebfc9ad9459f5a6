#!/usr/bin/env bash
# The browser of the page tests: Debian's Chromium. Installs it where it is missing and may be installed.
set -euo pipefail
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core
else
  echo "the page tests need Chromium: install it (Debian: apt-get install chromium), or set CHROMIUM=/path/to/it" >&2; exit 1
fi

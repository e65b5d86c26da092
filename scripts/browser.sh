#!/usr/bin/env bash
# A Chromium for the tests of the pages (report, served agent), from the distribution: nothing happens where there is
# one. It needs apt and root; elsewhere install Chromium or Chrome, or name one in CALIBADV_BROWSER. Without a browser
# those tests are skipped and say so.
set -euo pipefail
for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "browser: none found, and none can be installed here (that takes root and apt): install Chromium yourself" >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
command -v chromium

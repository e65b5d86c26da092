#!/usr/bin/env bash
# Makes .venv with the locked CPU stack: nothing global, nothing by hand. Runs again only when the lock changed.
#
# CPU torch is not on the package registry. If pip here is set up with --find-links, the wheel is taken from there;
# otherwise uv takes it from PyTorch's own CPU index. GPU machines use the `gpu` extra instead: see README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
stamp=.venv/.locked
wanted=$(cat requirements-cpu.lock pyproject.toml scripts/setup.sh | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

command -v "$python" >/dev/null || { echo "error: $python not found; install Python 3.11, or set PYTHON=/path/to/python3.11" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || {
  echo "error: $python is $("$python" --version 2>&1); Python 3.11 is needed (set PYTHON=...)" >&2; exit 1; }
echo "setup: .venv with the locked CPU stack (about 3 GB, a few minutes; once)"
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"

links=${UV_FIND_LINKS:-$(.venv/bin/python -m pip config list 2>/dev/null | sed -n "s/^[^=]*find-links='\(.*\)'$/\1/p" | head -n 1)}
if [ -n "$links" ]; then export UV_FIND_LINKS=$links; else export UV_TORCH_BACKEND=cpu; fi
export UV_LINK_MODE=copy
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -r requirements-cpu.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
echo "$wanted" >"$stamp"
echo "setup: done"

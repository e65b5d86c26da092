#!/usr/bin/env bash
# Makes .venv: nothing global, nothing by hand. `setup.sh`: the locked CPU stack. `setup.sh gpu`: the `gpu` extra, for one
# machine with NVIDIA GPUs (driver 580 or later); once it is there, `setup.sh` leaves it as it is, so that every make
# target runs in it. Runs again only when what it is made from has changed. Another kind, or a .venv that it did not make:
# rm -r .venv first.
#
# CPU torch is not on the package registry. If pip here is set up with --find-links, the wheel is taken from there;
# otherwise uv takes it from PyTorch's own CPU index. For GPUs pip is asked, not uv: pyproject's overrides are for CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-cpu}
python=${PYTHON:-python3.11}
exec 9<scripts/setup.sh
flock 9  # two targets at once: the second waits, and finds it done
# Packages that an interrupted set-up left behind look installed, and lack files.
begun=.venv/.begun
if [ -f "$begun" ]; then rm -rf .venv; fi
if [ "$kind" = cpu ] && [ -f .venv/.gpu ]; then kind=gpu; fi
if [ "$kind" = gpu ]; then stamp=.venv/.gpu other=.venv/.locked inputs=(pyproject.toml); else
  stamp=.venv/.locked other=.venv/.gpu inputs=(requirements-cpu.lock pyproject.toml); fi
wanted=$(cat "${inputs[@]}" scripts/setup.sh | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

if [ -f "$other" ]; then echo "error: .venv holds the CPU stack; remove it first (rm -r .venv), then run make setup-gpu again" >&2; exit 1; fi
if [ -d .venv/bin ] && [ ! -f "$stamp" ]; then echo "error: .venv was not made here, and nothing is laid over it: remove it (rm -r .venv) and call make again, or go on with its own .venv/bin/python" >&2; exit 1; fi
command -v "$python" >/dev/null || { echo "error: $python not found; install Python 3.11, or set PYTHON=/path/to/python3.11" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
  echo "error: $python is $("$python" --version 2>&1); Python 3.11 is needed (set PYTHON=/path/to/python3.11)" >&2; exit 1; }
mkdir -p .venv
: >"$begun"
if [ "$kind" = gpu ]; then
  echo "setup: .venv with the GPU stack (once)"
  "$python" -m venv .venv
  # MLflow's version is the lock's, as on the nodes of a cluster.
  mlflow=$(sed -n 's/^\(mlflow==[0-9.]*\).*/\1/p' requirements-cpu.lock)
  .venv/bin/python -m pip install --disable-pip-version-check -e ".[gpu,dev]" "$mlflow"
  echo "$wanted" >"$stamp"
  rm "$begun"
  echo "setup: done"
  exit 0
fi
echo "setup: .venv with the locked CPU stack (about 4 GB, a few minutes; once)"
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"

links=${UV_FIND_LINKS:-$(.venv/bin/python -m pip config list 2>/dev/null | sed -n "s/^[^=]*find-links='\(.*\)'$/\1/p" | head -n 1)}
if [ -n "$links" ]; then export UV_FIND_LINKS=$links; else export UV_TORCH_BACKEND=cpu; fi
export UV_LINK_MODE=copy
# A run is a dozen processes. Where Python may not write bytecode (PYTHONDONTWRITEBYTECODE, as in most images), each of
# them would compile every library that it imports: two thirds of its start.
export UV_COMPILE_BYTECODE=1
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -r requirements-cpu.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
echo "$wanted" >"$stamp"
rm "$begun"
echo "setup: done"

#!/usr/bin/env bash
# liger-kernel and Triton for tests/rllib/test_fused.py, which runs their kernels under Triton's interpreter: from the
# package registry as pip is set up here, some 550 MB unpacked, into CALIBADV_KERNELS, by default a folder of the user's
# cache. Not into .venv, which leaves Triton out (pyproject.toml). Without them that test is skipped and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
into=${CALIBADV_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/calibadv/kernels}
if [ -d "$into" ]; then exit 0; fi
mkdir -p "$(dirname "$into")"
work=$(mktemp -d "$into.XXXX")
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m pip install --quiet --no-deps --target "$work/site" liger-kernel==0.8.5 triton==3.4.0
mv "$work/site" "$into"

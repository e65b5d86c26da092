"""The GPU check on a CPU: every phase runs without Ray, and says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WITHOUT_RAY = "import runpy, sys; sys.modules['ray'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"


def started(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = [str(ROOT / "scripts" / "gpu_check.py"), "--out", str(out), "--shape", "tiny", "--device", "cpu"]
    command = [sys.executable, "-c", WITHOUT_RAY, *script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def check(folder: Path, *arguments: str) -> list[dict[str, object]]:
    out = folder / "check.jsonl"
    done = started(out, *arguments)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert (done.returncode == 0) == all(phase["passes"] for phase in found), done.stderr
    return found


def test_every_phase_passes_on_a_cpu_and_the_heads_products_are_all_bf16(tmp_path: Path) -> None:
    found = {str(phase["phase"]): phase for phase in check(tmp_path)}
    assert list(found) == ["machine", "head", "agreement", "attention", "packing", "fused", "learner", "publish"]
    assert [phase for phase in found.values() if not phase["passes"]] == []
    assert found["head"]["operands"] == {"torch.bfloat16": 4}
    assert found["packing"]["packed_tokens"] < found["packing"]["padded_tokens"]
    assert found["learner"]["packed_peak_bytes"] is None  # a GPU's alone is known
    assert found["publish"]["bytes"] == 2 * 131_648  # bf16


def test_phases_after_the_budget_say_that_they_were_not_begun(tmp_path: Path) -> None:
    (found,) = check(tmp_path, "--only", "learner", "--budget-s", "-1")
    assert found["error"] == "not begun: -1 s were over"
    assert found["passes"] is None


def test_a_phase_that_there_is_not_is_refused(tmp_path: Path) -> None:
    done = started(tmp_path / "check.jsonl", "--only", "head,leaner")
    assert done.returncode == 2
    assert "no phase is called leaner; expected some of machine, head," in done.stderr
    assert not (tmp_path / "check.jsonl").exists()

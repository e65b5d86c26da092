"""Fused kernels train as the model's own layers do, and are refused where they cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from calibadv.config import load_config
from calibadv.rllib.fused import fuse
from tests.rllib.conftest import settings
from tests.rllib.test_learner import make_learner

ROOT = Path(__file__).parents[2]


def test_kernels_of_a_cpus_interpreter_train_as_the_models_own_layers(tmp_path: Path) -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kernels = Path(os.environ.get("CALIBADV_KERNELS") or cache / "calibadv" / "kernels")
    if not (kernels / "liger_kernel").exists():
        pytest.skip(f"NO KERNELS IN {kernels}, so that learner.fused is NOT TESTED: scripts/kernels.sh fetches them")
    given = os.environ | {"PYTHONPATH": f"{ROOT}:{kernels}", "TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.rllib.interpreted", str(tmp_path)],
        cwd=ROOT,
        env=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [(row["kind"], row["packed"]) for row in found] == [
        ("qwen2", False),
        *((kind, True) for kind in ("qwen2", "qwen3", "llama", "mistral")),
    ]
    for row in found:
        assert row["norm"].startswith("liger_kernel.")
        assert row["logprobs"] < 1e-5
        assert row["gradients"] < 1e-5 * max(1, row["largest_gradient"])
        assert row["largest_gradient"] > 0.1


def test_they_are_refused_without_gpus_without_liger_and_for_a_kind_that_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"learner\.fused = true takes kernels for GPUs, and learner.gpus_per_learner"):
        load_config(None, {"learner.fused": True})
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", None)
    with pytest.raises(ValueError, match=r"learner\.fused needs liger-kernel .* pip install 'calibadv\[fused\]'"):
        fuse(torch.nn.Module())


def test_a_learner_refuses_kernels_that_change_a_log_prob(model_folder: Path) -> None:
    policy = make_learner(model_folder, settings()).policy
    policy.fuse(1e-3, lambda _: None)
    assert all(parameter.grad is None for parameter in policy.parameters())

    def wrong(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model.base_model.norm.weight.mul_(1.1)

    with pytest.raises(ValueError, match=r"learner\.fused changes a log-prob by 0\.\d+ nats, .* at most 0\.001 and"):
        policy.fuse(1e-3, wrong)

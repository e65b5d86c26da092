"""A written policy: under its checkpoint's names, readable by whoever may read the rest of its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from calibadv.rllib.checkpoint_names import as_in_checkpoint, check_cpu_engine, check_names, placeholder_weights
from tests.rllib.conftest import settings
from tests.rllib.test_learner import make_learner
from tests.rollout.engine_suite import save_tiny_model

EXPERTS = 4


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny mixture of experts with the tiny tokenizer."""
    folder = save_tiny_model(tmp_path_factory.mktemp("experts"))
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        moe_intermediate_size=16,
        num_experts=EXPERTS,
        num_experts_per_tok=2,
        bos_token_id=None,
        eos_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def written(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("options", [(), ("--learner.lora_rank=2",)])
def test_a_learners_folder_has_the_names_and_values_of_its_checkpoint(
    experts: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    learner = make_learner(experts, settings("--model.dtype=float32", *options))
    before = os.umask(0o027)
    try:
        learner.save_model(str(tmp_path / "model"))
    finally:
        os.umask(before)
    there, source = written(tmp_path / "model"), written(experts)
    assert "model.layers.1.mlp.experts.3.down_proj.weight" in source
    assert there.keys() == source.keys()
    for name, tensor in source.items():
        torch.testing.assert_close(there[name], tensor)  # the first adapters change nothing
    opened: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for name, tensor in opened.state_dict().items():
        torch.testing.assert_close(tensor, learner.policy.language_model.state_dict().get(name, tensor))
    for path in (tmp_path / "model").iterdir():
        assert oct(path.stat().st_mode & 0o777) == "0o640", path.name


def test_a_folders_model_is_built_once_for_all_that_is_asked_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, built = str(save_tiny_model(tmp_path)), []
    build = AutoModelForCausalLM.from_config

    def counted(config: Any) -> Any:
        built.append(config.vocab_size)
        return build(config)

    monkeypatch.setattr(AutoModelForCausalLM, "from_config", counted)
    check_names(folder)
    check_cpu_engine(folder)
    given = dict(placeholder_weights(folder, "bfloat16", in_checkpoint=True))
    assert (built, given["model.embed_tokens.weight"].shape[0]) == ([300], 300)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"vocab_size": 300', '"vocab_size": 301'))
    given = dict(placeholder_weights(folder, "bfloat16", in_checkpoint=True))
    assert given["model.embed_tokens.weight"].shape[0] == 301


@pytest.mark.parametrize("engine", ["vllm", "torch"])
def test_what_is_published_has_the_names_and_shapes_that_engines_were_given_at_their_start(
    experts: Path, engine: str
) -> None:
    learner = make_learner(experts, settings(f"--rollout.engine={engine}"))
    given = {name: weight.shape for name, weight in learner.published_weights()}
    placeholders = dict(placeholder_weights(str(experts), "bfloat16", engine == "vllm"))
    assert given == {name: tensor.shape for name, tensor in placeholders.items()}
    assert {tensor.dtype for tensor in placeholders.values()} == {torch.bfloat16}
    single = "model.layers.0.mlp.experts.0.up_proj.weight" in given
    assert (single, "model.layers.0.mlp.experts.gate_up_proj" in given) == (engine == "vllm", engine == "torch")


def test_experts_are_cut_apart_as_their_checkpoint_has_them(experts: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(experts, dtype=torch.float32)
    named = dict(as_in_checkpoint(model, model.named_parameters()))
    source = written(experts)
    assert named.keys() == source.keys()
    assert all(torch.equal(named[name], tensor) for name, tensor in source.items())
    check_names(str(experts))


def test_weights_that_cannot_be_named_singly_are_refused_by_the_models_name(experts: Path) -> None:
    def only_together(_: Any, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {f"of.{len(weights)}.{name}": weight for name, weight in weights.items()}

    with pytest.raises(ValueError, match="Qwen3MoeForCausalLM cannot be published under the names of its checkpoint"):
        check_names(str(experts), only_together)


def test_a_vllm_engine_on_a_cpu_takes_no_experts(experts: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Qwen3MoeForCausalLM\) has experts.*rollout.engine 'torch'"):
        check_cpu_engine(str(experts))
    check_cpu_engine(str(save_tiny_model(tmp_path)))  # without experts

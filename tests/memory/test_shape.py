"""Shapes of models without their weights: exact counts, where they are looked up, and what is said if nowhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from calibadv.memory.shape import KNOWN, adapter_parameters, model_shape
from calibadv.pocket import policy_path
from calibadv.rllib.lora import Lora, add_adapters

TINY = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "vocab_size": 32}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
# Embeddings 2 x 256, a layer 64 + 32 + 32 + 64 + 3 x 128 + 2 norms of 8, the last norm 8.
TINY_PARAMETERS = 512 + 2 * (192 + 384 + 16) + 8


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing cached, and no network: a test that wants one brings it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def folder(path: Path, **fields: Any) -> str:
    (path / "config.json").write_text(json.dumps(TINY | fields), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-3B", 3_085_938_688),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
    ],
)
def test_parameters_are_the_published_ones(name: str, published: int) -> None:
    assert model_shape(name).parameters == published


def test_adapters_by_hand_and_as_peft_makes_them(tmp_path: Path) -> None:
    shape = model_shape(folder(tmp_path))
    # Two layers: q 8 + 8, k and v 8 + 4 each, o 8 + 8, gate and up 8 + 16 each, down 16 + 8.
    assert dict(shape.linear) == {
        "q_proj": 32,
        "k_proj": 24,
        "v_proj": 24,
        "o_proj": 32,
        "gate_proj": 48,
        "up_proj": 48,
        "down_proj": 48,
    }
    assert adapter_parameters(shape, 3, "all-linear") == 3 * 256
    assert adapter_parameters(shape, 3, ("q_proj", "v_proj", "q_proj")) == 3 * 56
    assert adapter_parameters(shape, 0, ("c_attn",)) == 0
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    add_adapters(model, Lora(3, 8.0, "all-linear", seed=0))
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == 3 * 256


def test_adapters_of_the_papers_model() -> None:
    # A layer: q and o 7,168 each, k and v 4,096 each, gate, up and down 22,528 each.
    assert adapter_parameters(model_shape("Qwen/Qwen2.5-7B"), 16, "all-linear") == 16 * 28 * 90_112 == 40_370_176


def test_adapters_beside_layers_that_there_are_none_of_are_refused(tmp_path: Path) -> None:
    shape = model_shape(folder(tmp_path))
    with pytest.raises(ValueError, match=r"no linear layer for c_attn: expected names among q_proj, k_proj"):
        adapter_parameters(shape, 8, ("q_proj", "c_attn"))
    with pytest.raises(ValueError, match=r"no linear layer for all-linear: expected names among none"):
        adapter_parameters(replace(shape, linear=()), 8, "all-linear")


def test_parameters_of_the_papers_encoder_and_reranker() -> None:
    assert model_shape("intfloat/e5-base-v2", "encoder").parameters == 109_482_240
    assert model_shape("cross-encoder/ms-marco-MiniLM-L12-v2", "encoder").parameters == 33_360_000


def test_shape_of_a_folder_by_hand(tmp_path: Path) -> None:
    shape = model_shape(folder(tmp_path))
    assert shape.parameters == TINY_PARAMETERS
    assert (shape.hidden, shape.intermediate, shape.layers, shape.vocabulary) == (8, 16, 2, 32)
    assert (shape.kv_heads, shape.head_dim, shape.tied) == (2, 2, False)
    assert shape.embedding == 256
    assert shape.trunk == TINY_PARAMETERS - 256


def test_a_tied_head_is_counted_once_and_belongs_to_the_trunk(tmp_path: Path) -> None:
    shape = model_shape(folder(tmp_path, tie_word_embeddings=True))
    assert shape.parameters == shape.trunk == TINY_PARAMETERS - 256


def test_qwen2_has_biases_on_queries_keys_and_values(tmp_path: Path) -> None:
    # Of each of 2 layers: 8 + 4 + 4.
    assert model_shape(folder(tmp_path, model_type="qwen2")).parameters == TINY_PARAMETERS + 32


def test_a_model_of_another_family_has_its_shape_under_its_own_names(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')  # n_embd, n_layer, n_head; 124 M is its default
    shape = model_shape(str(tmp_path))
    assert (shape.parameters, shape.hidden, shape.layers, shape.kv_heads) == (124_439_808, 768, 12, 12)
    assert (shape.head_dim, shape.intermediate) == (64, 3072)


def test_shipped_policy_has_the_parameters_of_its_weights() -> None:
    from transformers import AutoModelForCausalLM

    counted = AutoModelForCausalLM.from_pretrained(policy_path()).num_parameters()
    assert model_shape(str(policy_path())).parameters == counted


# ---- where it is looked up ---------------------------------------------------------------------------------------


def test_the_hubs_cache_comes_before_the_known_shapes(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--Qwen--Qwen2.5-7B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    folder(snapshot)
    assert "Qwen/Qwen2.5-7B" in KNOWN
    assert model_shape("Qwen/Qwen2.5-7B").parameters == TINY_PARAMETERS


def test_an_unknown_name_is_asked_of_the_hub_for_its_configuration_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(url: str, **_: Any) -> httpx.Response:
        asked.append(url)
        return httpx.Response(200, json=TINY, request=httpx.Request("GET", url))

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(httpx, "get", answer)
    assert model_shape("someone/model").parameters == TINY_PARAMETERS
    assert len(asked) == 1
    assert asked[0].endswith("someone/model/resolve/main/config.json")


@pytest.mark.parametrize("status", [401, 404])
def test_a_model_that_the_hub_does_not_give_is_said_so(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(httpx, "get", lambda url, **_: httpx.Response(status, request=httpx.Request("GET", url)))
    with pytest.raises(ValueError, match=rf"someone/model is not a folder .*the hub could not be asked: .*{status}"):
        model_shape("someone/model")


def test_no_network_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> httpx.Response:
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(httpx, "get", refuse)
    with pytest.raises(ValueError, match="the hub could not be asked: Name or service not known"):
        model_shape("someone/model")


def test_offline_the_hub_is_not_asked() -> None:
    with pytest.raises(ValueError, match="not among the known shapes, and HF_HUB_OFFLINE=1 forbids to ask the hub"):
        model_shape("someone/model")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no config.json"),
        ("{", "cannot be read as a model's config.json"),
        ("[1]", "cannot be read as a model's config.json"),
        ('{"hidden_size": 8}', "describes no model that can be built here .*expected the model_type"),
        ('{"model_type": "bert"', "cannot be read"),
        ('{"model_type": "nothing"}', "describes no model that can be built here"),
    ],
)
def test_a_folder_without_a_usable_configuration_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        model_shape(str(tmp_path))


def test_a_path_that_is_not_there_is_no_hub_name() -> None:
    with pytest.raises(ValueError, match="'/no/such/model' is neither a folder nor a hub name"):
        model_shape("/no/such/model")

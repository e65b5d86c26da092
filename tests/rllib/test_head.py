"""The learner's log-probs are the model's own for every head, or the model is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    Cohere2Config,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    Gemma3TextConfig,
    GPTJConfig,
    GraniteConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3MoeConfig,
)

from calibadv.rllib.head import Steps, check_architecture, check_own_logits, head_of, measured
from calibadv.rllib.policy import load_causal_lm, policy_pass

TINY = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "initializer_range": 0.3,  # far from uniform, so that a step left out shows
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
}
HEADS: dict[str, tuple[PreTrainedConfig, Steps]] = {
    "plain": (Qwen2Config(**TINY), Steps()),
    "tied": (Qwen2Config(**TINY, tie_word_embeddings=True), Steps()),
    "experts": (
        Qwen3MoeConfig(**TINY, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2),
        Steps(),
    ),
    "bias": (PhiConfig(**TINY), Steps()),
    "bias of GPT-J": (GPTJConfig(vocab_size=90, n_embd=32, n_layer=2, n_head=4, rotary_dim=4), Steps()),
    "multiplier": (CohereConfig(**TINY, logit_scale=0.25), Steps(0.25)),
    "multiplier, sliding": (Cohere2Config(**TINY, logit_scale=3.0, sliding_window=4), Steps(3.0)),
    "divisor": (GraniteConfig(**TINY, logits_scaling=8.0), Steps(0.125)),
    "multiplier under another name": (
        FalconH1Config(**TINY, lm_head_multiplier=0.5, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8),
        Steps(0.5),
    ),
    "cap": (Gemma2Config(**TINY, head_dim=8, final_logit_softcapping=5.0), Steps(cap=5.0)),
    "cap of Gemma 3": (Gemma3TextConfig(**TINY, head_dim=8, final_logit_softcapping=7.0), Steps(cap=7.0)),
    "decoder in a decoder": (
        OPTConfig(vocab_size=90, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, init_std=0.3),
        Steps(),
    ),
}


def saved(config: PreTrainedConfig, folder: Path) -> str:
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    if model.get_output_embeddings().bias is not None:
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    model.save_pretrained(folder)
    return str(folder)


def batch(length: int = 20) -> dict[str, Tensor]:
    ids_BT = torch.randint(90, (2, length), generator=torch.Generator().manual_seed(1))
    predicts_N = torch.arange(2 * length).view(2, length)[:, 4:-1].flatten()
    return {"ids_BT": ids_BT, "predicts_N": predicts_N, "targets_N": ids_BT[:, 5:].flatten()}


def own_logprobs(model: PreTrainedModel, given: dict[str, Tensor]) -> Tensor:
    logprobs_BTV = model(input_ids=given["ids_BT"], use_cache=False).logits.float().log_softmax(-1)
    return logprobs_BTV.flatten(0, 1)[given["predicts_N"]].gather(-1, given["targets_N"][:, None])[:, 0]


@pytest.mark.parametrize("name", HEADS)
def test_log_probs_and_gradients_are_those_of_the_models_own_logits(name: str, tmp_path: Path) -> None:
    config, steps = HEADS[name]
    path = saved(config, tmp_path)
    check_architecture(path)
    model = load_causal_lm(path)
    head = head_of(model)
    assert (head.scale, head.cap or 0.0) == pytest.approx((steps.scale, steps.cap or 0.0), rel=1e-6)
    gradients = []
    for logprobs_of in (lambda *given: policy_pass(*given)[1].logprobs_N, own_logprobs):
        model.zero_grad()
        logprobs_N = logprobs_of(model, batch())
        (logprobs_N * torch.linspace(-1, 1, len(logprobs_N))).sum().backward()
        gradients.append([logprobs_N.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for ours, own in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-3)


def test_steps_are_measured_whatever_they_are_called(tmp_path: Path) -> None:
    """A multiplier before a cap, in a forward pass whose configuration says nothing of either."""
    model: Any = AutoModelForCausalLM.from_pretrained(saved(HEADS["bias"][0], tmp_path))
    own = model.forward

    def forward(**given: Any) -> Any:
        output = own(**given)
        output.logits = 12.0 * torch.tanh(0.3 * output.logits / 12.0)
        return output

    model.forward = forward
    steps = measured(model)
    assert (steps.scale, steps.cap) == pytest.approx((0.3, 12.0))


BERT = BertConfig(
    vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, is_decoder=True
)


def test_another_kind_of_head_is_refused_by_name_without_weights_and_with_them(tmp_path: Path) -> None:
    path = saved(BERT, tmp_path)
    with pytest.raises(ValueError, match="BertLMHeadModel makes its logits in another way"):
        load_causal_lm(path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="BertLMHeadModel makes its logits in another way"):
        check_architecture(path)


def test_log_probs_that_are_not_the_models_are_refused_with_the_difference(tmp_path: Path) -> None:
    model = load_causal_lm(saved(HEADS["plain"][0], tmp_path))
    check_own_logits(model, lambda given: policy_pass(model, given)[1].logprobs_N + 5e-5)
    with pytest.raises(ValueError, match=r"Qwen2ForCausalLM are up to 0\.01 nats from the model's own"):
        check_own_logits(model, lambda given: policy_pass(model, given)[1].logprobs_N + 0.01)
    with pytest.raises(ValueError, match="up to nan nats"):
        check_own_logits(model, lambda given: policy_pass(model, given)[1].logprobs_N * torch.nan)


def test_dropout_and_router_noise_are_off_in_nested_configurations_too(tmp_path: Path) -> None:
    from transformers import Gemma3Config, PhimoeConfig

    noisy = {**TINY, "num_local_experts": 2}
    path = saved(PhimoeConfig(**noisy, router_jitter_noise=0.1, attention_dropout=0.2), tmp_path / "moe")
    config = load_causal_lm(path).config
    assert (config.router_jitter_noise, config.attention_dropout) == (0.0, 0.0)
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = Gemma3TextConfig(**TINY, head_dim=8, attention_dropout=0.2).to_dict()
    nested = Gemma3Config(text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    assert load_causal_lm(saved(nested, tmp_path / "nested")).config.text_config.attention_dropout == 0.0


def test_a_model_of_many_layers_is_checked_without_weights(tmp_path: Path) -> None:
    """The shapes of a model of 7 billion parameters, of which nothing but a small head is made."""
    large = Qwen2Config(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4
    )
    (tmp_path / "config.json").write_text(json.dumps(large.to_dict()), encoding="utf-8")
    check_architecture(str(tmp_path))

"""What a configuration comes to, in numbers: rollouts, updates, tokens and sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.config import Config, load_config
from calibadv.memory.dry_run import consequences
from tests.build import overrides_of

POCKET = Path(__file__).parents[2] / "workflows" / "recipes" / "pocket.toml"


def test_consequences_of_a_pocket_run_by_hand() -> None:
    config = load_config(
        POCKET,
        overrides_of(
            *("--run.steps=30", "--data.questions_per_step=32", "--rollout.samples=5", "--rollout.engines=2"),
            *("--rollout.max_turns=4", "--rollout.max_turn_tokens=48", "--rollout.max_tokens=1024"),
            *("--learner.minibatch_rollouts=40", "--learner.lr=3e-4", "--learner.lr_final=3e-5"),
            *("--learner.token_budget=8192", "--model.path=pocket", "--model.dtype=float32"),
        ),
    )
    facts = consequences(config)
    assert facts["rollouts a step"] == "32 questions x 5 = 160"
    assert facts["updates a step"] == "4 of 40 rollouts"
    assert facts["updates in all"] == "120"
    assert facts["rollouts in all"] == "4,800"
    assert facts["sampled tokens a step"] == "at most 38,400"  # 160 x 5 turns x 48
    assert facts["tokens a step"] == "at most 163,840 with prompts and documents"
    assert facts["searches a step"] == "at most 640"
    assert facts["learning rate"] == "0.0003 to 3e-05, cosine over 120 updates"
    assert facts["processes"] == "2 engines, 1 learners, 1 retrievers"
    assert facts["parameters"] == "2.0 M"
    # A token's keys and values: 2 x 4 layers x 192 x 4 bytes = 6,144; a rollout's 1,024 tokens: 6 MiB.
    assert facts["KV cache a full rollout"] == "0.006 GiB"
    assert facts["learner state"] == "0.03 GiB (fp32 weights, gradients, AdamW)"


def test_a_turns_budget_counts_only_up_to_the_whole_rollouts() -> None:
    facts = consequences(Config())  # 5 turns x 1,024 < 16,384
    assert facts["sampled tokens a step"] == "at most 13,107,200"
    short = load_config(None, {"rollout.max_tokens": 3000})
    assert consequences(short)["sampled tokens a step"] == "at most 7,680,000"  # 2,560 x 3,000


def test_sizes_of_a_qwen_7b_by_hand() -> None:
    facts = consequences(load_config(None, {"model.path": "Qwen/Qwen2.5-7B"}))
    assert facts["parameters"] == "7,615.6 M"
    assert facts["weights an engine"] == "14.19 GiB bfloat16"  # 15,231,233,024 bytes
    # A token's KV: 2 x 28 x 4 x 128 x 2 bytes = 57,344.
    assert facts["KV cache a full rollout"] == "0.875 GiB"
    assert facts["learner state"] == "113.48 GiB (fp32 weights, gradients, AdamW)"
    # 16,384 x (28.5 x (32 x 3,584 + 8 x 512 + 16 x 18,944) + 16 x 3,584) bytes
    assert facts["activations a micro-batch"] == "about 184.34 GiB (float32, no gradient checkpointing)"
    assert facts["logits in a chunk"] == "0.58 GiB (never those of a whole batch)"


def test_what_each_of_several_learners_holds_of_a_shared_state() -> None:
    shared = ("--learner.zero=2", "--learner.learners=4")
    facts = consequences(load_config(None, overrides_of("--model.path", "Qwen/Qwen2.5-7B", *shared)))
    assert facts["learner state"] == "113.48 GiB (fp32 weights, gradients, AdamW)"
    # 4 bytes a parameter, and a quarter of 16 more.
    assert facts["state each learner holds"] == "56.74 GiB (ZeRO-2)"


def test_adapters_have_gradients_and_moments_and_the_frozen_weights_none() -> None:
    facts = consequences(load_config(None, {"model.path": "Qwen/Qwen2.5-7B", "learner.lora_rank": 16}))
    assert facts["parameters that train"] == "40.4 M, of adapters"
    # 4 x 7,615,616,512 + 16 x 40,370,176 bytes
    assert facts["learner state"] == "28.97 GiB (fp32 weights, adapters with gradients and AdamW)"
    assert "parameters that train" not in consequences(Config())


def test_sizes_of_a_model_of_unknown_shape_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    facts = consequences(load_config(None, {"model.path": "someone/model"}))
    assert facts["memory"].startswith("not known: someone/model is not a folder on this machine, not in its hub cache")
    assert "parameters" not in facts
    assert facts["rollouts a step"] == "512 questions x 5 = 2,560"


def test_gpus_are_counted_and_a_run_on_cpus_has_none() -> None:
    assert consequences(Config())["GPUs"] == "8 of one node of 8"  # 8 engines; learner and search on CPUs
    assert "GPUs" not in consequences(load_config(POCKET))


def test_time_of_a_step_is_modelled_where_the_kind_of_gpu_is_named() -> None:
    learners = ("--learner.learners=4", "--learner.gpus_per_learner=1", "--learner.zero=3", "--rollout.engines=4")
    given = overrides_of(*learners, "--model.path=Qwen/Qwen2.5-7B", "--learner.dtype=bfloat16")
    assert "time of a step" not in consequences(load_config(None, given))
    facts = consequences(load_config(None, given | {"learner.gradient_checkpointing": True, "cluster.gpu": "H100"}))
    # docs/scaling.md has the same case: 4 + 4 on H100.
    assert facts["time of a step"] == (
        "about 213 s on H100 (a model, measured nowhere): rollouts 49 and learning 152, publication 12; longest is "
        "learn: arithmetic"
    )
    assert facts["taken for granted"].startswith("3 turns of 100 tokens, prompt 200, observation 450, 40% of the peak")
    overlapped = consequences(load_config(None, given | {"rollout.max_staleness": 1, "cluster.gpu": "H100"}))
    assert ", beside each other, publication" in overlapped["time of a step"]

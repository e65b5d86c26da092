"""Bytes of engines, learners and indexes, by hand and against what a real model keeps for its backward pass."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calibadv.memory.items import (
    GIB,
    Item,
    activation_bytes,
    card_bytes,
    engine_items,
    index_vector_bytes,
    kv_token_bytes,
    layer_activations,
    learner_items,
    state_items,
)
from calibadv.memory.shape import ModelShape
from calibadv.rllib.lora import Lora, add_adapters

QWEN_7B = ModelShape(7_615_616_512, 3584, 18_944, 28, 4, 128, 152_064, tied=False)
QWEN_3B = ModelShape(3_085_938_688, 2048, 11_008, 36, 2, 128, 151_936, tied=True)


def named(items: tuple[Item, ...]) -> dict[str, float]:
    """Bytes by name."""
    assert len({item.name for item in items}) == len(items)
    return {item.name: item.size_bytes for item in items}


def engine(shape: ModelShape, **options: Any) -> dict[str, float]:
    return named(engine_items(shape, **options))


def learner(shape: ModelShape, **options: Any) -> dict[str, float]:
    return named(learner_items(shape, **options))


def state(trained: int, **options: Any) -> dict[str, float]:
    return named(state_items(trained, **options))


SMALL: Any = {"tokens": 16, "autocast": True, "checkpointing": True}


def test_a_card_is_counted_in_powers_of_ten_and_not_to_the_brim() -> None:
    assert card_bytes(80) == pytest.approx(77.6e9)


def test_kv_cache_of_a_token_by_hand() -> None:
    assert kv_token_bytes(QWEN_7B, 2) == 2 * 28 * 4 * 128 * 2 == 57_344
    assert kv_token_bytes(QWEN_7B, 4) == 114_688
    assert 16_384 * kv_token_bytes(QWEN_7B, 2) == 0.875 * GIB


@pytest.mark.parametrize(("ranks", "bytes_"), [(1, 57_344), (2, 28_672), (4, 14_336), (8, 14_336)])
def test_key_value_heads_are_shared_by_ranks_and_repeated_where_there_are_too_few(ranks: int, bytes_: int) -> None:
    assert kv_token_bytes(QWEN_7B, 2, ranks) == bytes_


def test_an_engine_by_hand() -> None:
    items = engine(QWEN_7B, item=2, sequences=256)
    assert items["weights, 2 bytes a parameter"] == 15_231_233_024
    # 8,192 x (4 x 18,944 + 8 x 3,584) + 12 x 256 x 152,064
    assert items["activations and logits of a step"] == 855_638_016 + 467_140_608
    assert items["CUDA context and graphs"] == 2 * GIB


def test_what_an_engine_is_told_is_counted() -> None:
    items = engine(QWEN_7B, item=2, sequences=256, tokens=16_384, graphs=False)
    assert items["activations and logits of a step"] == 1_711_276_032 + 467_140_608
    assert items["CUDA context"] == GIB
    many = engine(QWEN_7B, item=2, sequences=10_000)["activations and logits of a step"]  # a token each, at least
    assert many == 10_000 * (4 * 18_944 + 8 * 3584) + 12 * 10_000 * 152_064


def test_tensor_parallel_ranks_share_the_weights() -> None:
    assert engine(QWEN_7B, item=2, sequences=1, tensor_parallel=4)["weights, 2 bytes a parameter"] == 3_807_808_256


def test_a_learner_by_hand() -> None:
    items = learner(QWEN_7B, tokens=16_384, autocast=True, checkpointing=True)
    assert items["weights, fp32"] == items["gradients, fp32"] == 4 * 7_615_616_512
    assert items["AdamW's two moments, fp32"] == 8 * 7_615_616_512
    # Embedding and head are not among the casts: 2 x (7,615,616,512 - 2 x 544,997,376).
    assert items["bf16 copies of weights (autocast)"] == 13_051_243_520
    # 16,384 x (4 x 3,584 x 28 + 1.5 x (30 x 3,584 + 4 x 512 + 8 x 18,944) + 16 x 3,584)
    assert items["activations of 16,384 tokens"] == 16_384 * (401_408 + 391_680 + 57_344)
    # 12 x 1,024 x 152,064 + 6 x 544,997,376
    assert items["logits of a chunk, head's gradient"] == 1_868_562_432 + 3_269_984_256
    assert sum(items.values()) == 155_046_874_112
    assert len(items) == 7  # with CUDA's context; no reference, no critic


def test_what_is_there_during_an_update_alone_says_so() -> None:
    items = learner_items(QWEN_3B, tokens=16, autocast=True, checkpointing=True, reference=True, zero=3, learners=2)
    items += learner_items(QWEN_3B, tokens=16, autocast=False, checkpointing=True, zero=1, learners=2)
    assert {item.name for item in items if item.transient} == {
        "weights gathered from others, fp32",
        "bf16 copies of weights (autocast)",
        "activations of 16 tokens",
        "logits of a chunk, head's gradient",
        "AdamW's step, beyond all that",
    }


def test_fp32_needs_no_copies_of_weights_and_keeps_larger_activations() -> None:
    items = learner(QWEN_7B, tokens=16_384, autocast=False, checkpointing=True)
    assert "bf16 copies of weights (autocast)" not in items
    assert layer_activations(QWEN_7B, autocast=False) == 32 * 3584 + 8 * 512 + 16 * 18_944
    assert items["activations of 16,384 tokens"] == 16_384 * (401_408 + 1.5 * 421_888 + 57_344)


def test_without_checkpointing_every_layer_keeps_its_activations() -> None:
    # Per token 28 layers of 261,120 bytes, half of one more, and 16 x 3,584.
    expected = 1000 * (28 * 261_120 + 130_560 + 57_344)
    assert activation_bytes(QWEN_7B, 1000, autocast=True, checkpointing=False) == expected


@pytest.mark.parametrize(
    ("zero", "weights", "stepped", "gradients", "moments"),
    [(0, 12, 0, 12, 24), (1, 12, 4, 12, 8), (2, 12, 4, 4, 8), (3, 4, 4, 4, 8)],
)
def test_each_stage_shares_one_thing_more(
    zero: Any, weights: float, stepped: float, gradients: float, moments: float
) -> None:
    items = state(3, zero=zero, learners=3)  # three parameters, three learners
    assert list(items.values()) == [size for size in (weights, stepped, gradients, moments) if size]


@given(st.integers(2, 64), st.sampled_from([1, 2, 3]))
def test_learners_that_share_hold_the_whole_state_once_between_them(learners: int, zero: Any) -> None:
    items = state(QWEN_3B.parameters, zero=zero, learners=learners)
    shared = ["weights as AdamW steps them, fp32", "AdamW's two moments, fp32"]
    shared += ["gradients, fp32"] * (zero >= 2) + ["weights, fp32"] * (zero == 3)
    assert learners * sum(items[name] for name in shared) == pytest.approx(
        {1: 12, 2: 16, 3: 20}[zero] * QWEN_3B.parameters
    )


def test_stage_3_has_bf16_copies_of_one_layer_and_gathered_weights_instead_of_all_of_them() -> None:
    items = learner(QWEN_7B, tokens=16_384, autocast=True, checkpointing=True, zero=3, learners=4)
    assert items["bf16 copies of weights (autocast)"] == 13_051_243_520 / 28
    assert items["weights gathered from others, fp32"] == 4 * (2**28 + 544_997_376)  # the embedding is the largest
    assert items["DeepSpeed's bucket"] == 4 * 2**26
    plain = learner(QWEN_7B, tokens=16_384, autocast=True, checkpointing=True)
    for name in ("activations of 16,384 tokens", "logits of a chunk, head's gradient", "CUDA context, NCCL"):
        assert items[name] == plain[name]


def test_7b_with_weights_in_bf16_fits_stage_2_on_four_cards_of_80_gb() -> None:
    given: dict[str, Any] = {"tokens": 16_384, "autocast": True, "checkpointing": True, "zero": 2, "learners": 4}
    half, whole = learner(QWEN_7B, **given, half=True), learner(QWEN_7B, **given)
    parameters = QWEN_7B.parameters
    assert half["weights, bf16"] == 2 * parameters
    assert "weights, fp32" not in half
    assert "bf16 copies of weights (autocast)" not in half
    for name in ("weights as AdamW steps them, fp32", "gradients, fp32"):
        assert half[name] == whole[name] == 4 * parameters / 4
    assert sum(half.values()) < 0.9 * 80 * 1e9 < sum(whole.values())


def test_a_shared_step_counts_where_micro_batches_are_small() -> None:
    # DeepSpeed's row of gradients is 4 bytes of a learner's parameters, when activations, casts and logits are gone.
    small: dict[str, Any] = {"tokens": 16, "autocast": False, "checkpointing": True}
    items = learner(QWEN_3B, **small, zero=1, learners=2)
    gone = items["activations of 16 tokens"] + items["logits of a chunk, head's gradient"]
    assert items["AdamW's step, beyond all that"] == pytest.approx(2 * QWEN_3B.parameters - gone)
    assert "AdamW's step, beyond all that" not in learner(QWEN_3B, **small)


def test_a_reference_is_one_more_copy_of_the_weights() -> None:
    plain, kl = learner(QWEN_3B, **SMALL), learner(QWEN_3B, **SMALL, reference=True)
    assert sum(kl.values()) - sum(plain.values()) == 4 * QWEN_3B.parameters
    assert "reference model, fp32" not in plain


def test_a_critic_that_is_a_model_is_a_second_state_with_activations_and_a_head_costs_nothing() -> None:
    plain, critic = (learner(QWEN_7B, **SMALL, critic=kind) for kind in (None, "model"))
    trunk = QWEN_7B.parameters - QWEN_7B.embedding  # no head of its own
    assert critic["weights, fp32"] - plain["weights, fp32"] == 4 * trunk
    assert critic["AdamW's two moments, fp32"] - plain["AdamW's two moments, fp32"] == 8 * trunk
    assert critic["activations of 16 tokens"] == 2 * plain["activations of 16 tokens"]
    copies = "bf16 copies of weights (autocast)"
    assert critic[copies] == 2 * plain[copies]  # the same layers twice
    assert learner(QWEN_7B, **SMALL, critic="head") == plain


ADAPTERS = 40_370_176  # of rank 16 beside every linear layer of Qwen2.5-7B


def test_adapters_have_a_state_and_the_model_none() -> None:
    items = learner(QWEN_7B, tokens=16_384, autocast=True, checkpointing=True, adapters=ADAPTERS)
    assert items["frozen weights, fp32"] == 4 * 7_615_616_512
    assert items["adapters, fp32"] == items["gradients, fp32"] == 4 * ADAPTERS
    assert items["AdamW's two moments, fp32"] == 8 * ADAPTERS
    assert "weights, fp32" not in items
    assert items["bf16 copies of weights (autocast)"] == 13_051_243_520 / 28  # one layer's, until it has run backward
    # 12 x 1,024 x 152,064 + 2 x 544,997,376: no gradient of the head
    assert items["logits of a chunk, head's gradient"] == 1_868_562_432 + 1_089_994_752
    # As without adapters, but for 24 x 3,584 in place of 30 x 3,584 of one layer and a half.
    assert items["activations of 16,384 tokens"] == 16_384 * (401_408 + 1.5 * 239_616 + 57_344)


@pytest.mark.parametrize(
    ("label", "adapters", "zero", "learners"),
    [
        ("all weights", 0, 0, 1),
        ("rank 16", ADAPTERS, 0, 1),
        ("rank 64", 4 * ADAPTERS, 0, 1),
        ("rank 16, `zero = 3`, 4 learners", ADAPTERS, 3, 4),
    ],
)
def test_the_table_of_adapters_in_the_docs_is_this_arithmetic(
    label: str, adapters: int, zero: Any, learners: int
) -> None:
    items = learner(
        QWEN_7B, tokens=16_384, autocast=True, checkpointing=True, adapters=adapters, zero=zero, learners=learners
    )
    kept = state(adapters or QWEN_7B.parameters, frozen=adapters and QWEN_7B.parameters, zero=zero, learners=learners)
    frozen = kept.pop("frozen weights, fp32", 0.0)
    trains = sum(kept.values())
    total = sum(items.values())
    counts = [f"{adapters / 1e6:.1f} M", f"{frozen / GIB:.1f}"] if adapters else ["", ""]
    sizes = [f"{size / GIB:.1f}" for size in (trains, total - frozen - trains, total)]
    row = "| " + " | ".join([label, *counts, *sizes]) + " |"
    docs = (Path(__file__).parents[2] / "docs" / "lora.md").read_text("utf-8")
    assert row.replace("|  |  |", "| | |") in docs


def test_adapters_need_no_second_model_for_the_reference() -> None:
    plain, kl = (learner(QWEN_7B, **SMALL, adapters=ADAPTERS, reference=reference) for reference in (False, True))
    assert kl == plain


def test_without_checkpointing_the_backward_pass_keeps_copies_of_all_frozen_layers() -> None:
    options: Any = SMALL | {"checkpointing": False, "adapters": ADAPTERS}
    assert learner(QWEN_7B, **options)["bf16 copies of weights (autocast)"] == 13_051_243_520
    options["autocast"] = False
    assert "bf16 copies of weights (autocast)" not in learner(QWEN_7B, **options)


@pytest.mark.parametrize(("zero", "frozen", "adapters"), [(0, 12, 16), (1, 12, 12), (2, 12, 28 / 3), (3, 4, 20 / 3)])
def test_frozen_weights_are_shared_in_stage_3_alone(zero: Any, frozen: float, adapters: float) -> None:
    # Three frozen parameters, one of adapters, three learners.
    items = state(1, frozen=3, zero=zero, learners=3)
    assert items.pop("frozen weights, fp32") == frozen
    assert sum(items.values()) == pytest.approx(adapters)


def test_vectors_of_an_index_by_hand() -> None:
    sizes = [index_vector_bytes(kind, 768) for kind in ("flat", "fp16", "hnsw", "ivfpq")]
    assert sizes == [3072, 1536, 0, 200]  # FAISS keeps HNSW on the CPU


# ---- against a real model ----------------------------------------------------------------------------------------


def kept_bytes(layers: int, tokens: int, *, autocast: bool, rank: int = 0) -> int:
    """Bytes of all that autograd keeps of a small Qwen2, its own parameters aside; `rank`: of adapters."""
    from transformers import Qwen2Config, Qwen2Model

    model = Qwen2Model(
        Qwen2Config(
            vocab_size=32,
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    ).train()
    if rank:
        add_adapters(model, Lora(rank, 8.0, "all-linear", seed=0))
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # the storages themselves, so that none is freed and counted twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    cast = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), cast:
        _ = model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("rank", [0, 4])
def test_a_layer_keeps_what_autograd_keeps(autocast: bool, rank: int) -> None:
    def layer(tokens: int) -> int:  # adapters keep the first block's inputs differently: its come without a gradient
        three, two = (kept_bytes(layers, tokens, autocast=autocast, rank=rank) for layers in (3, 2))
        return three - two

    measured = (layer(512) - layer(256)) / 256  # copies of weights do not grow with tokens
    shape = ModelShape(0, 64, 192, 2, 2, 16, 32, tied=False)
    # Beside the formula: attention's log-sum-exp of 4 heads and two norms' scales, fp32; outputs of A of seven layers.
    rest = 4 * 4 + 2 * 4 + 7 * rank * (2 if autocast else 4)
    formula = layer_activations(shape, autocast=autocast, adapters=rank > 0)
    assert measured == pytest.approx(formula + rest, rel=0.005)

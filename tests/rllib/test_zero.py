"""What DeepSpeed is told, in which groups weights are gathered, and which states are taken up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from calibadv.memory.items import ZERO_BUCKET, ZERO_LIVE
from calibadv.rllib.ranks import on_rank_zero
from calibadv.rllib.zero import check_layout, deepspeed_config, layer_groups, layout
from calibadv.rllib.zero_updater import taken_up

NAMES = st.sampled_from(["embed.weight", "norm.weight", *(f"layers.{i}.{part}" for i in (1, 2, 12) for part in "abc")])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_gradients_and_steps_are_left_to_us_but_for_the_clip(stage: int) -> None:
    config = deepspeed_config(stage, grad_clip=0.5, hidden_size=64)
    assert config["zero_optimization"]["stage"] == stage
    assert config["gradient_clipping"] == 0.5
    # The learner says which backward pass is the last, and scales the loss itself.
    assert (config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == (1, 1)
    assert not {"optimizer", "scheduler", "fp16", "bf16", "torch_autocast"} & set(config)


def test_stage_3_keeps_no_more_gathered_weights_than_the_memory_table_counts() -> None:
    zero = deepspeed_config(3, grad_clip=1.0, hidden_size=64)["zero_optimization"]
    assert zero["stage3_max_live_parameters"] == zero["stage3_max_reuse_distance"] == ZERO_LIVE
    assert zero["reduce_bucket_size"] == zero["stage3_prefetch_bucket_size"] == ZERO_BUCKET
    assert zero["stage3_param_persistence_threshold"] == 640
    others = deepspeed_config(2, grad_clip=1.0, hidden_size=64)["zero_optimization"]
    assert not [key for key in others if key.startswith("stage3")]


def test_a_layers_weights_are_gathered_together_and_the_embedding_and_head_each_by_itself() -> None:
    names = [
        "model.embed_tokens.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.experts.3.down.weight",  # up to the first number
        "model.layers.10.mlp.up_proj.weight",
        "model.layers.10.input_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
    ]
    assert layer_groups(names) == [names[:1], names[1:3], names[3:5], names[5:6], names[6:]]
    assert layer_groups([]) == []


@given(st.lists(NAMES))
def test_every_weight_is_gathered_once_and_in_its_place(names: list[str]) -> None:
    assert [name for group in layer_groups(names) for name in group] == names


def test_a_state_is_taken_up_by_as_many_learners_of_the_same_stage() -> None:
    check_layout(layout(2, 4), layout(2, 4))
    with pytest.raises(
        ValueError, match=r"as learner.zero = 2 does it between 4 learners, and this run has .* 2 learners"
    ):
        check_layout(layout(2, 4), layout(2, 2))
    with pytest.raises(ValueError, match=r"set learner.zero to 2 and learner.learners to 4, or begin a new run"):
        check_layout(layout(2, 4), layout(3, 4))
    with pytest.raises(ValueError, match=r"hold all of it each, and this run's share it: set learner.zero to 0"):
        check_layout(None, layout(3, 4))


def test_moments_are_taken_up_where_a_fused_adamw_of_a_gpu_has_its_own() -> None:
    """Fake tensors of a GPU, where the count of steps lies too."""
    with FakeTensorMode():
        weight = torch.empty(4, device="cuda", requires_grad=True)
        weight.grad = torch.empty(4, device="cuda")
        adamw = torch.optim.AdamW([weight], fused=True)
        adamw.step()
        own = adamw.state[weight]
        stored = {name: tensor.to("cpu") for name, tensor in own.items()}
        taken = taken_up(stored, weight.device)
        assert {name: (tensor.device, tensor.dtype) for name, tensor in taken.items()} == {
            name: (tensor.device, tensor.dtype) for name, tensor in own.items()
        }
        assert own["step"].device.type == "cuda"


# ---- what only rank 0 makes --------------------------------------------------------------------------------------


def parts(seen: list[int]) -> Iterator[int]:
    for part in range(3):
        seen.append(part)
        yield part


def test_rank_0_makes_it_and_the_others_only_run_through_the_parts() -> None:
    for rank, made in ((0, [0, 1, 2]), (1, None)):
        seen: list[int] = []
        assert on_rank_zero(rank, parts(seen), list) == made
        assert seen == [0, 1, 2]


def test_when_rank_0_fails_it_still_runs_through_all_parts_so_that_no_rank_waits() -> None:
    seen: list[int] = []

    def fail(given: Iterator[int]) -> Any:
        next(given)
        raise OSError("the object store is full")

    with pytest.raises(OSError, match="the object store is full"):
        on_rank_zero(0, parts(seen), fail)
    assert seen == [0, 1, 2]

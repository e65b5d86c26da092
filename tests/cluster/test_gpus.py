"""Engines that would not start, or not wake, on this machine's GPUs: one line before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.cluster.gpus import cards_here, check_gpus, check_room
from calibadv.pocket import policy_path
from tests.build import recipe

GB = 10**9


def small_qwen(folder: Path) -> Path:
    """A folder that says what Qwen2.5-0.5B's config.json does: 494,032,768 parameters."""
    (folder / "config.json").write_text(
        '{"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, '
        '"num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": true}'
    )
    return folder


def test_engines_that_ask_ray_for_no_gpu_are_refused_where_vllm_would_take_one() -> None:
    with pytest.raises(ValueError, match=r"gpus_per_engine = 0, and torch sees 2 here.*--config pocket-gpu"):
        check_gpus(recipe("pocket"), policy_path(), [24 * GB, 24 * GB])
    check_gpus(recipe("pocket"), policy_path(), [])
    check_gpus(recipe("pocket", "--rollout.engine=torch"), policy_path(), [24 * GB])
    check_gpus(recipe("pocket", "--cluster.address=auto"), policy_path(), [24 * GB])  # engines are elsewhere


def test_a_share_that_leaves_a_colocated_learner_no_room_is_refused_with_one_that_does(tmp_path: Path) -> None:
    model = small_qwen(tmp_path)
    check_gpus(recipe("qwen2.5-0.5b-one-gpu"), model, [24 * GB])
    # The learner rests with 16 + 2 bytes a parameter and a GiB, 9.97e9 bytes: 0.85 of the card is more than is left.
    greedy = recipe("qwen2.5-0.5b-one-gpu", "--rollout.gpu_memory_utilization=0.85")
    with pytest.raises(
        ValueError, match=r"= 0.85 of a card of 22.4 GiB: .* learner of 9.3 GiB .* short; set rollout.g"
    ):
        check_gpus(greedy, model, [24 * GB, 80 * GB])
    check_gpus(greedy, None, [24 * GB])  # of a model that is fetched first the shape is not known yet
    apart = ("--rollout.placement=separate", "--cluster.gpus_per_engine=1", "--learner.gpus_per_learner=1")
    check_gpus(recipe("qwen2.5-0.5b-one-gpu", "--rollout.gpu_memory_utilization=0.85", *apart), model, [24 * GB])


def test_a_machine_with_too_few_gpus_is_refused_where_a_run_would_wait_for_them() -> None:
    check_room(recipe("pocket"), 0)
    two = recipe("pocket", "--cluster.gpus_per_engine=0.5", "--learner.learners=1", "--learner.gpus_per_learner=1")
    check_room(two, 2)  # two engines of a half each
    with pytest.raises(ValueError, match="engines, learners and search ask for 2 GPUs, and this machine has 1: on"):
        check_room(two, 1)
    seven = recipe("qwen2.5-7b")  # 2 engines, 5 learners, and search's
    check_room(seven, 8)
    with pytest.raises(ValueError, match=r"search ask for 8 GPUs, and this machine has 7: .* search\.num_gpus to 0"):
        check_room(seven, 7)


def test_the_pocket_recipe_fits_a_small_card() -> None:
    check_gpus(recipe("pocket-gpu"), policy_path(), [8 * GB])


def test_a_machine_without_a_gpu_has_no_cards() -> None:
    assert cards_here() == ()

"""Publication, the whole step, and what a configuration is taken for."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from calibadv.config import ClusterConfig, load_config
from calibadv.step_time.estimate import estimate, layout_of, work_of
from calibadv.step_time.gpu import GPUS
from calibadv.step_time.layout import Engines, Layout, Learners
from calibadv.step_time.model import step_time
from calibadv.step_time.publication import publication_phase
from calibadv.step_time.work import Work
from tests.build import overrides_of
from tests.step_time.build import IDEAL, QWEN_7B, TINY, UNIT, WORK

SMALL = Layout(Engines(1), Learners(4, zero=3))
ON_GPUS = ("--learner.learners=4", "--learner.gpus_per_learner=1", "--learner.zero=3", "--cluster.gpu=H100")


def test_publication_by_hand() -> None:
    phase = publication_phase(TINY, UNIT, SMALL, IDEAL)  # 2000 bytes in bf16, links and copies of 10^9 bytes a second
    assert phase.parts == pytest.approx(
        {
            "gathering": 3e-6,  # 4 x 1000 x 3/4
            "packing": 6e-6,
            "sending to other nodes": 0,
            "loading": 4e-6,
            "sleep and wake": 0,
        }
    )
    assert phase.bound == "copies into the object store"


def test_without_stage_3_nothing_is_gathered_and_fp32_engines_take_twice_as_much() -> None:
    whole = replace(SMALL, learners=Learners(4, zero=2), engines=Engines(1, dtype="float32"))
    phase = publication_phase(TINY, UNIT, whole, IDEAL)
    assert phase.parts["gathering"] == 0
    assert phase.parts["packing"] == pytest.approx(12e-6)


@pytest.mark.parametrize(
    ("layout", "nodes"),
    [
        (Layout(Engines(4), Learners(4)), 0),
        (Layout(Engines(32), Learners(32)), 4),
        (Layout(Engines(4, tensor_parallel=4), Learners(16)), 2),
        (Layout(Engines(64), Learners(64), colocated=True, shared_memory=False), 7),
        (Layout(Engines(64), Learners(32), colocated=True), 7),
        (Layout(Engines(8), Learners(8), colocated=True), 0),
    ],
)
def test_nodes_that_weights_are_sent_to(layout: Layout, nodes: int) -> None:
    assert layout.remote_nodes == nodes
    sent = publication_phase(TINY, UNIT, layout, IDEAL).parts["sending to other nodes"]
    assert sent == pytest.approx(nodes * 2e-6)


def test_colocated_engines_sleep_and_wake() -> None:
    both = Layout(Engines(8), Learners(8), colocated=True)
    assert publication_phase(TINY, UNIT, both, IDEAL).parts["sleep and wake"] == pytest.approx(4e-6)


def test_an_engine_beside_a_learner_copies_within_its_gpu() -> None:
    both = Layout(Engines(64), Learners(64), colocated=True)
    phase = publication_phase(TINY, UNIT, both, IDEAL)
    assert phase.parts["sending to other nodes"] == 0
    assert phase.parts["loading"] == pytest.approx(2 * 2000 / 1e12)
    assert phase.parts["packing"] == pytest.approx(6e-6)
    stored = publication_phase(TINY, UNIT, replace(both, shared_memory=False), IDEAL)
    assert stored.parts["loading"] == pytest.approx(4e-6)


@pytest.mark.parametrize("wrong", [{"max_staleness": 1}, {"learners": Learners(9)}])
def test_a_colocation_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="take turns on the same GPUs"):
        replace(Layout(Engines(8), Learners(8), colocated=True), **wrong)  # type: ignore[arg-type]


def test_a_collective_beyond_a_node_goes_over_all_its_network_links() -> None:
    h100 = GPUS["H100"]
    assert h100.bus_bytes_per_s(8) == 450e9
    assert h100.bus_bytes_per_s(16) == 8 * 50e9
    assert GPUS["A100"].bus_bytes_per_s(16) == 8 * 25e9


def test_staleness_overlaps_rollouts_with_learning() -> None:
    strict, overlapped = (
        step_time(TINY, UNIT, WORK, replace(SMALL, max_staleness=staleness), IDEAL) for staleness in (0, 1)
    )
    rollout, learn, sync = (getattr(strict, phase).seconds for phase in ("rollout", "learn", "sync"))
    assert strict.seconds == pytest.approx(rollout + learn + sync)
    assert overlapped.seconds == pytest.approx(max(rollout, learn) + sync)
    assert strict.bound == "learn: links between learners"  # links of 10^9 bytes beside 10^12 operations


def test_learning_of_7b_on_eight_h20_by_hand() -> None:
    step = step_time(QWEN_7B, GPUS["H20"], Work(), Layout(Engines(8), Learners(8), colocated=True))
    # 3,584,000 tokens x 4 x (2 x 6,525,621,760 + 4 x 28 x 3584 x 700), 768,000 x 4 x 2 x 544,997,376 for the head.
    flops = 3_584_000 * 4 * (13_051_243_520 + 280_985_600) + 768_000 * 8 * 544_997_376
    assert step.learn.parts["training passes"] == pytest.approx(flops / (8 * 148e12 * 0.4))
    assert step.bound == "learn: arithmetic"


def test_kinds_of_gpus_in_the_configuration_are_those_that_are_known() -> None:
    assert set(get_args(ClusterConfig.model_fields["gpu"].annotation)) == {"", *GPUS}
    assert all(name == gpu.name for name, gpu in GPUS.items())


def test_no_estimate_without_a_named_gpu_or_for_parts_on_cpus() -> None:
    assert estimate(load_config(None, overrides_of(*ON_GPUS[:3])), QWEN_7B) is None
    assert estimate(load_config(None, {"cluster.gpu": "H100"}), QWEN_7B) is None  # the learner is in the driver
    assert estimate(load_config(None, overrides_of(*ON_GPUS, "--cluster.gpus_per_engine=0")), QWEN_7B) is None


def test_a_configurations_estimate_is_the_models() -> None:
    config = load_config(
        None, overrides_of(*ON_GPUS) | {"learner.dtype": "bfloat16", "learner.gradient_checkpointing": True}
    )
    step = estimate(config, QWEN_7B)
    assert step == step_time(QWEN_7B, GPUS["H100"], Work(), Layout(Engines(8), Learners(4)))


def test_a_configurations_layout() -> None:
    given = ["--learner.kl_coef=0.1", "--learner.old_logprobs=recompute", "--rollout.tensor_parallel=2"]
    layout = layout_of(load_config(None, overrides_of(*ON_GPUS, *given, "--rollout.engines=3", "--search.replicas=2")))
    assert layout.engines == Engines(3, tensor_parallel=2)
    assert layout.learners == Learners(4, dtype="float32", checkpointing=False, forwards=2)
    assert (layout.colocated, layout.max_staleness, layout.retrievers) == (False, 0, 2)
    turns = ("--rollout.placement=colocated", "--cluster.gpus_per_engine=0.6", "--learner.gpus_per_learner=0.4")
    both = layout_of(load_config(None, overrides_of(*ON_GPUS, *turns)))
    assert (both.colocated, both.gpus, both.in_place) == (True, 8, False)
    assert layout_of(load_config(None, overrides_of(*ON_GPUS, *turns, "--learner.learners=8"))).in_place
    ppo = layout_of(load_config(None, {"method.name": "ppo"}))
    assert ppo.learners.models == 2
    assert layout_of(load_config(None, {"learner.lora_rank": 8})).learners.adapters


def test_limits_of_a_configuration_cut_the_assumed_rollout() -> None:
    limits = ("--rollout.max_turns=1", "--rollout.max_turn_tokens=40", "--rollout.max_observation_tokens=60")
    work = work_of(load_config(None, overrides_of(*limits, "--rollout.max_prompt_tokens=100")))
    assert work == Work(512, 5, 100, 2, 40, 60, longest_turns=2, longest_action_tokens=80)
    assert work_of(load_config(None)) == Work()

"""The model of a step's time by hand: rollouts, learning, publication, and mini-batches against the real draw."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.scaling import main
from benchmarks.scaling_model import A100, H20, H100, Assumptions, Gpu, Layout, StepModel, Work, slowest_share
from benchmarks.scaling_model_table import MODEL, changed, colocated, model_tables, solved, step_rows
from calibadv.batching import shard_groups
from calibadv.memory.shape import ModelShape, model_shape
from tests.build import QUESTION, group, trajectory

# Embedding and head 10 x 4 each, so that 920 parameters are the layers'. A token's keys and values: 2 x 2 x 4 numbers.
TINY = ModelShape(1000, 4, 16, 2, 1, 4, 10, tied=False)
QWEN_7B = ModelShape(7_615_616_512, 3584, 18_944, 28, 4, 128, 152_064, tied=False)
# 10^12 operations and bytes a second; links of 10^9 bytes a second.
UNIT = Gpu("unit", 1, 1, 80, nvlink_gb_s=1, network_gb_s=0.0625, pcie_gb_s=1)
# Everything reaches its peak, and what takes no GPU takes no time.
IDEAL = Assumptions(
    learner_mfu=1,
    engine_mfu=1,
    bandwidth=1,
    links=1,
    engine_step_s=0,
    search_s=0,
    searches_per_s=1e18,
    store_gb_s=1,
    transfer_gb_s=1,
)
# Four rollouts of 10 + 2 x 5 + 20 = 40 tokens, of which 10 are sampled.
WORK = Work(
    questions=2,
    samples=2,
    updates=1,
    prompt_tokens=10,
    turns=2,
    action_tokens=5,
    observation_tokens=20,
    longest_turns=3,
    longest_action_tokens=30,
)
SMALL = StepModel(TINY, UNIT, WORK, IDEAL)
ONE = Layout(1, 1, zero=0)
# 160 tokens with 20 before each in the mean; 40 of them reach the head.
LAYERS, HEAD = 160 * (1840 + 32 * 20), 40 * 80


def test_work_by_hand() -> None:
    assert (WORK.rollouts, WORK.searches, WORK.actions, WORK.rollout_tokens) == (4, 4, 10, 40)
    assert WORK.context == 10 + 25 / 2 + 5 / 2  # half the rollouts' sampled tokens have a turn of 25 before them
    paper = Work()
    assert (paper.rollouts, paper.searches, paper.actions, paper.rollout_tokens) == (2560, 5120, 300, 1400)
    assert paper.context == 200 + 550 + 50


def test_operations_of_a_pass_by_hand() -> None:
    assert SMALL.layer_flops(10, 5) == 10 * (2 * 920 + 4 * 2 * 4 * 5)
    assert replace(SMALL, shape=replace(TINY, tied=True)).layer_flops(10, 0) == 10 * 2 * 960
    assert SMALL.head_flops(10) == 10 * 2 * 40


# ---- rollouts ----------------------------------------------------------------------------------------------------


def test_a_prompt_is_read_once_for_all_its_samples_and_every_observation_once() -> None:
    # 2 prompts of 10 tokens with 5 before each in the mean; 4 observations of 20 in the middle of 40.
    flops = 20 * (1840 + 32 * 5) + 80 * (1840 + 32 * 20)
    assert SMALL.prefill_s(1) == pytest.approx(flops / 1e12)
    assert SMALL.prefill_s(2) == pytest.approx(flops / 2e12)


def test_a_decoding_step_is_bound_by_memory_alone_and_by_arithmetic_in_a_batch() -> None:
    # One rollout: 2000 bytes of weights and 25 x 32 of keys and values, against 2720 operations.
    assert SMALL.decoding_step(1) == (pytest.approx(2800 / 1e12), "memory")
    # Two: 3600 bytes against 5440 operations.
    assert SMALL.decoding_step(2) == (pytest.approx(5440 / 1e12), "arithmetic")


def test_an_engine_runs_its_share_up_to_what_its_cache_holds() -> None:
    assert (SMALL.running(ONE), SMALL.running(replace(ONE, engines=2))) == (4, 2)
    qwen = StepModel(QWEN_7B, replace(UNIT, memory_gb=40))
    # 0.85 x 0.97 x 40e9 less 18,701,495,296 bytes of weights, activations and context; 1,400 tokens of 57,344 bytes.
    assert qwen.running(ONE) == pytest.approx((32_980_000_000 - 18_701_495_296) / (1400 * 57_344))
    assert replace(qwen, gpu=replace(UNIT, memory_gb=10)).running(ONE) == 1
    assert replace(qwen, gpu=UNIT).running(ONE) == 256


def test_a_learner_that_stays_beside_an_engine_makes_its_cache_smaller() -> None:
    qwen, both = StepModel(QWEN_7B, replace(UNIT, memory_gb=60)), Layout(8, 8, colocated=True)
    # 0.97 x 60e9 less an eighth of 20 bytes a parameter and 2 of published weights, below 0.85 x 0.97 x 60e9.
    room = 58_200_000_000 - 4.5 * 7_615_616_512
    assert qwen.running(both) == pytest.approx((room - 18_701_495_296) / (1400 * 57_344))
    assert qwen.running(replace(both, colocated=False)) == 256


def test_rollouts_by_hand() -> None:
    phase = replace(SMALL, assumed=replace(IDEAL, search_s=0.5, engine_step_s=1e-3)).rollout(ONE)
    # 40 tokens, four at a time: 10 steps of 4 x 2720 operations.
    assert phase.parts["decoding"] == pytest.approx(10 * (10_880 / 1e12 + 1e-3))
    # The longest samples 20 tokens more than the mean, alone, and waits for two searches.
    assert phase.parts["tail"] == pytest.approx(20 * (2800 / 1e12 + 1e-3) + 1.0)
    assert phase.parts["waiting for the retriever"] == 0
    assert phase.bound == "the longest rollout"
    assert phase.seconds == sum(phase.parts.values())


def test_a_slow_retriever_hides_the_engines() -> None:
    slow = replace(SMALL, assumed=replace(IDEAL, searches_per_s=2.0))
    phase = slow.rollout(ONE)
    worked = phase.parts["prefill"] + phase.parts["decoding"]
    assert worked + phase.parts["waiting for the retriever"] == pytest.approx(2.0)  # 4 searches
    assert phase.bound == "the retriever"
    two = slow.rollout(replace(ONE, retrievers=2))
    assert two.seconds - two.parts["tail"] == pytest.approx(1.0)


def test_more_engines_do_not_shorten_the_tail() -> None:
    one, many = (SMALL.rollout(replace(ONE, engines=engines)) for engines in (1, 4))
    assert many.parts["tail"] == one.parts["tail"] > 0
    assert many.parts["prefill"] == pytest.approx(one.parts["prefill"] / 4)


# ---- learning ----------------------------------------------------------------------------------------------------


def test_one_learner_by_hand() -> None:
    phase = replace(SMALL, work=replace(WORK, updates=2)).learn(replace(ONE, forwards=2))
    assert phase.parts["training passes"] == pytest.approx(4 * (LAYERS + HEAD) / 1e12)
    assert phase.parts["further forward passes"] == pytest.approx(2 * (LAYERS + HEAD) / 1e12)
    assert phase.parts["waiting for the slowest learner"] == phase.parts["gradients and weights sent"] == 0
    assert phase.parts["AdamW"] == pytest.approx(2 * 28 * 1000 / 1e12)
    assert phase.bound == "arithmetic"


@pytest.mark.parametrize(
    ("layout", "copies"), [(Layout(1, 4, zero=0), 2), (Layout(1, 4), 3), (Layout(1, 4, forwards=1), 4)]
)
def test_bytes_sent_in_an_update_of_one_micro_batch(layout: Layout, copies: int) -> None:
    sent_s = SMALL.learn(layout).parts["gradients and weights sent"]
    assert sent_s == pytest.approx(copies * 4 * 1000 * 3 / 4 / 1e9)


def test_learners_that_share_their_state_step_a_part_each() -> None:
    assert SMALL.learn(Layout(1, 4)).parts["AdamW"] == pytest.approx(28 * 250 / 1e12)
    assert SMALL.learn(Layout(1, 4, zero=0)).parts["AdamW"] == pytest.approx(28 * 1000 / 1e12)


def test_the_slowest_learners_share_is_that_of_the_real_dealing() -> None:
    work = Work(questions=64, samples=5, updates=4)
    groups = [
        group(*(trajectory(0.0, [1]) for _ in range(5)), question=replace(QUESTION, id=f"test/{index}"))
        for index in range(work.questions)
    ]
    even = work.rollouts / (8 * work.updates)
    largest = []
    for seed in range(20):
        shards = shard_groups(groups, num_minibatches=work.updates, num_shards=8, seed=seed, packed=False)
        counts = [Counter(item.minibatch_G[i] for item in shard for i in item.trained) for shard in shards]
        largest += [max(count[update] for count in counts) / even for update in range(work.updates)]
    assert slowest_share(8, 64, 5, work.updates, 0.0) == pytest.approx(fmean(largest), rel=0.04)


def test_one_learner_waits_for_nobody() -> None:
    assert slowest_share(1, 512, 5, 10, 0.5) == 1
    assert 1.05 > slowest_share(64, 512, 5, 10, 0.5) > slowest_share(8, 512, 5, 10, 0.5) > 1


# ---- publication and the whole step ------------------------------------------------------------------------------


def test_publication_by_hand() -> None:
    phase = SMALL.publish(Layout(1, 4))  # 2000 bytes in bf16, links and copies of 10^9 bytes a second
    assert phase.parts == pytest.approx(
        {
            "gathering": 3e-6,  # 4 x 1000 x 3/4
            "packing": 4e-6,  # over PCIe, and into the store
            "sending to other nodes": 0,
            "loading": 4e-6,
        }
    )
    assert phase.bound == "copies into the object store"
    assert SMALL.publish(Layout(1, 4, zero=0)).parts["gathering"] == 0


@pytest.mark.parametrize(
    ("layout", "nodes"), [(Layout(4, 4), 0), (Layout(32, 32), 4), (Layout(64, 64, colocated=True), 0)]
)
def test_nodes_that_weights_are_sent_to(layout: Layout, nodes: int) -> None:
    assert SMALL.publish(layout).parts["sending to other nodes"] == pytest.approx(nodes * 2e-6)


def test_an_engine_beside_a_learner_copies_within_its_gpu() -> None:
    phase = SMALL.publish(Layout(64, 64, colocated=True))
    assert phase.parts["loading"] == pytest.approx(2 * 2000 / 1e12)
    assert phase.parts["packing"] == pytest.approx(4e-6)


def test_a_collective_beyond_a_node_goes_over_all_its_network_links() -> None:
    assert H100.bus_bytes_per_s(8) == 450e9
    assert H100.bus_bytes_per_s(16) == 8 * 50e9
    assert A100.bus_bytes_per_s(16) == 8 * 25e9


def test_staleness_overlaps_rollouts_with_learning() -> None:
    strict, overlapped = (SMALL.step(Layout(1, 4, staleness=staleness)) for staleness in (0, 1))
    rollout, learn, sync = (getattr(strict, phase).seconds for phase in ("rollout", "learn", "sync"))
    assert strict.seconds == pytest.approx(rollout + learn + sync)
    assert overlapped.seconds == pytest.approx(max(rollout, learn) + sync)
    assert overlapped.bound == f"sync: {strict.sync.bound}"


def test_learning_of_7b_on_eight_h20_by_hand() -> None:
    step = StepModel(QWEN_7B, H20).step(Layout(8, 8, colocated=True))
    # 3,584,000 tokens x 4 x (2 x 6,525,621,760 + 4 x 28 x 3584 x 700), 768,000 x 4 x 2 x 544,997,376 for the head.
    flops = 3_584_000 * 4 * (13_051_243_520 + 280_985_600) + 768_000 * 8 * 544_997_376
    assert step.learn.parts["training passes"] == pytest.approx(flops / (8 * 148e12 * 0.4))
    assert step.bound == "learn: arithmetic"


# ---- the tables --------------------------------------------------------------------------------------------------


def test_documentation_shows_the_tables_as_they_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model"]) == 0
    printed = capsys.readouterr().out
    assert printed == model_tables()
    document = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    for table in printed.strip().split("\n\n"):
        assert table.strip() in document


def test_the_papers_time_stands_beside_its_own_hardware_only() -> None:
    shown = {(row[0], bool(row[-1])) for row in step_rows(model_shape(MODEL))}
    assert shown == {("8 x H20", True), ("64 x H20", False), ("8 x H100", False), ("64 x H100", False)}


def test_a_solved_assumption_makes_the_papers_time() -> None:
    shape = model_shape(MODEL)
    value = float(solved(shape, colocated(8), "learner_mfu", 0.05, 0.95))
    assert changed(shape, colocated(8), "learner_mfu", value).seconds == pytest.approx(809, rel=0.01)
    assert solved(shape, colocated(8), "learner_mfu", 0.9, 0.95) == "none"

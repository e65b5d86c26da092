"""Prefill, decoding, the retriever and the tail, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calibadv.step_time.flops import head_flops, layer_flops, layer_parameters
from calibadv.step_time.layout import Engines, Layout, Learners
from calibadv.step_time.rollout import decoding_step, prefill, rollout_phase, running
from calibadv.step_time.work import Work
from tests.step_time.build import IDEAL, QWEN_7B, TINY, UNIT, WORK

LAYOUT = Layout(Engines(1), Learners(1, zero=0))


def test_work_by_hand() -> None:
    assert (WORK.rollouts, WORK.searches, WORK.actions, WORK.rollout_tokens, WORK.tokens) == (4, 4, 10, 40, 160)
    assert WORK.context == 10 + 25 / 2 + 5 / 2  # half the rollouts' sampled tokens have a turn of 25 before them


def test_the_assumed_step_by_hand() -> None:
    work = Work()
    assert (work.rollouts, work.searches, work.actions, work.rollout_tokens) == (2560, 5120, 300, 1400)
    assert work.context == 200 + 550 + 50


@pytest.mark.parametrize("wrong", [{"questions": 0}, {"samples": 0}, {"turns": 0.5}, {"longest_turns": 1}])
def test_work_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected each to be at least 1"):
        replace(WORK, **wrong)  # type: ignore[arg-type]


def test_operations_of_a_pass_by_hand() -> None:
    assert layer_parameters(TINY) == 920
    assert layer_parameters(replace(TINY, tied=True)) == 960
    assert layer_flops(TINY, 10, 5) == 10 * (2 * 920 + 4 * 2 * 4 * 5) == 20_000
    assert head_flops(TINY, 10) == 10 * 2 * 40


def test_a_prompt_is_read_once_for_all_its_samples_and_every_observation_once() -> None:
    # 2 prompts of 10 tokens with 5 before each in the mean; 4 observations of 20 in the middle of 40.
    flops = 20 * (1840 + 32 * 5) + 80 * (1840 + 32 * 20)
    assert prefill(TINY, UNIT, WORK, Engines(1), IDEAL) == pytest.approx(flops / 1e12)
    assert prefill(TINY, UNIT, WORK, Engines(2), IDEAL) == pytest.approx(flops / 2e12)
    assert prefill(TINY, UNIT, WORK, Engines(1, dtype="float32"), IDEAL) == pytest.approx(flops / 0.5e12)


def test_a_decoding_step_is_bound_by_memory_alone_and_by_arithmetic_in_a_batch() -> None:
    # One rollout: 2000 bytes of weights and 25 x 32 of keys and values, against 2720 operations.
    seconds, bound = decoding_step(TINY, UNIT, Engines(1), IDEAL, batch=1, context=25)
    assert seconds == pytest.approx(2800 / 1e12)
    assert bound == "memory"
    # Two: 3600 bytes against 5440 operations.
    seconds, bound = decoding_step(TINY, UNIT, Engines(1), IDEAL, batch=2, context=25)
    assert seconds == pytest.approx(5440 / 1e12)
    assert bound == "arithmetic"


def test_ranks_divide_a_decoding_step_but_not_the_keys_of_a_head() -> None:
    seconds, _ = decoding_step(TINY, UNIT, Engines(1, tensor_parallel=2), IDEAL, batch=1, context=25)
    assert seconds == pytest.approx((1000 + 800) / 1e12)


def test_an_engine_runs_its_share_up_to_what_it_batches() -> None:
    assert running(TINY, UNIT, WORK, LAYOUT) == 4
    assert running(TINY, UNIT, WORK, replace(LAYOUT, engines=Engines(2))) == 2
    assert running(TINY, UNIT, WORK, replace(LAYOUT, engines=Engines(1, max_concurrent=3))) == 3


def test_an_engine_runs_what_its_cache_holds() -> None:
    card = replace(UNIT, memory_gb=40)
    # 0.85 x 0.97 x 40e9 less 19,557,133,312 bytes of weights, activations and context; 1,400 tokens of 57,344 bytes.
    expected = (32_980_000_000 - 19_557_133_312) / (1400 * 57_344)
    assert running(QWEN_7B, card, Work(), LAYOUT) == pytest.approx(expected)
    assert running(QWEN_7B, replace(UNIT, memory_gb=10), Work(), LAYOUT) == 1


def test_a_learner_that_stays_beside_an_engine_makes_its_cache_smaller() -> None:
    card, work = replace(UNIT, memory_gb=60), Work()
    both = Layout(Engines(8), Learners(8, zero=3), colocated=True, shared_memory=False)
    # 0.97 x 60e9 less an eighth of 20 bytes a parameter, which is less than 0.85 x 0.97 x 60e9.
    expected = (58_200_000_000 - 20 * 7_615_616_512 / 8 - 19_557_133_312) / (1400 * 57_344)
    assert running(QWEN_7B, card, work, both) == pytest.approx(expected)
    assert running(QWEN_7B, card, work, replace(both, colocated=False)) == 256
    # With published weights there too, 2 bytes a parameter; frozen weights have neither gradients nor moments.
    token = 1400 * 57_344
    assert running(QWEN_7B, card, work, replace(both, shared_memory=True)) == pytest.approx(
        expected - 2 * 7_615_616_512 / token
    )
    adapters = replace(both, learners=Learners(8, zero=3, adapters=True))
    assert running(QWEN_7B, replace(card, memory_gb=40), work, adapters) == pytest.approx(
        (32_980_000_000 - 19_557_133_312) / token
    )


def test_rollouts_by_hand() -> None:
    phase = rollout_phase(TINY, UNIT, WORK, LAYOUT, replace(IDEAL, search_s=0.5, engine_step_s=1e-3))
    # 40 tokens, four at a time: 10 steps of 4 x 2720 operations.
    assert phase.parts["decoding"] == pytest.approx(10 * (10_880 / 1e12 + 1e-3))
    # The longest samples 20 tokens more than the mean, alone, and waits for two searches.
    assert phase.parts["tail"] == pytest.approx(20 * (2800 / 1e12 + 1e-3) + 1.0)
    assert phase.parts["waiting for the retriever"] == 0
    assert phase.bound == "the longest rollout"
    assert phase.seconds == sum(phase.parts.values())


def test_a_slow_retriever_hides_the_engines() -> None:
    phase = rollout_phase(TINY, UNIT, WORK, LAYOUT, replace(IDEAL, searches_per_s=2.0))
    worked = phase.parts["prefill"] + phase.parts["decoding"]
    assert worked + phase.parts["waiting for the retriever"] == pytest.approx(2.0)  # 4 searches
    assert phase.bound == "the retriever"
    two = rollout_phase(TINY, UNIT, WORK, replace(LAYOUT, retrievers=2), replace(IDEAL, searches_per_s=2.0))
    assert two.seconds - two.parts["tail"] == pytest.approx(1.0)


def test_more_engines_do_not_shorten_the_tail() -> None:
    one, many = (rollout_phase(TINY, UNIT, WORK, replace(LAYOUT, engines=Engines(n)), IDEAL) for n in (1, 4))
    assert many.parts["tail"] == one.parts["tail"] > 0
    assert many.parts["prefill"] == pytest.approx(one.parts["prefill"] / 4)

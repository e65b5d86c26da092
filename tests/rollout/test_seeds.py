"""Sampling seeds: the same on every machine, different for everything that is sampled apart."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from calibadv.rollout.seeds import sampling_seed


def test_known_seed() -> None:
    # blake2b("3|7|1|2|test/q1"), 48 bits: a change would make every published run another one.
    assert sampling_seed(3, 7, "test/q1", 1, 2) == 185_593_766_023_253


def test_every_argument_counts() -> None:
    arguments = itertools.product((0, 1), (0, 1), ("a", "b"), (0, 1), (0, 1))
    assert len({sampling_seed(*some) for some in arguments}) == 32


def test_arguments_do_not_run_into_each_other() -> None:
    assert sampling_seed(1, 11, "q", 0) != sampling_seed(11, 1, "q", 0)
    assert sampling_seed(0, 0, "0|q", 0, 0) != sampling_seed(0, 0, "q", 0, 0)


def test_a_steps_seeds_are_distinct() -> None:
    seeds = [sampling_seed(0, 5, f"hotpot/{q}", s, t) for q in range(200) for s in range(5) for t in range(5)]
    assert len(set(seeds)) == len(seeds)


@given(st.integers(0, 2**40), st.integers(0, 10**6), st.text(max_size=20), st.integers(0, 2**40), st.integers(0, 9))
def test_seed_is_pure_and_has_48_bits(run: int, step: int, question: str, sample: int, turn: int) -> None:
    seed = sampling_seed(run, step, question, sample, turn)
    assert 0 <= seed < 2**48
    assert seed == sampling_seed(run, step, question, sample, turn)

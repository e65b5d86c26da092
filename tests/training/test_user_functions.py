"""The user's functions are tried before a run, and what cannot be one is refused with its setting's name."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from calibadv.config import load_config
from calibadv.training.user_functions import code_digests, try_user_code
from tests.build import QUESTION

SURROGATES = """
import torch
from calibadv.surrogates import Surrogate

def right(tokens):
    return Surrogate(tokens.log_ratio().exp() * tokens.advantages_N)

def a_sum(tokens):
    return Surrogate((tokens.log_ratio().exp() * tokens.advantages_N).sum())

def bare(tokens):
    return tokens.advantages_N * tokens.logprobs_N

def deaf(tokens):
    return Surrogate(tokens.advantages_N)

def broken(tokens):
    return tokens.rewards_N
"""


@pytest.fixture
def surrogates(tmp_path: Path) -> Path:
    file = tmp_path / "surrogates.py"
    file.write_text(SURROGATES, encoding="utf-8")
    return file


def test_a_surrogate_is_tried_and_says_what_gradient_it_gives(
    surrogates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(None, {"learner.surrogate": f"{surrogates}:right"})
    with caplog.at_level(logging.INFO):
        try_user_code(config, QUESTION)
    assert f"learner.surrogate {surrogates}:right: gradients 1 and -1 at advantages 1 and -1" in caplog.text
    assert config.make_method().surrogate is not None
    assert set(code_digests(config)) == {"learner.surrogate"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a_sum", "expected a calibadv.surrogates.Surrogate with an objective a token"),
        ("bare", "expected a calibadv.surrogates.Surrogate"),
        ("deaf", "expected a calibadv.surrogates.Surrogate"),
        ("broken", "AttributeError: 'PolicyTokens' object has no attribute 'rewards_N'"),
    ],
)
def test_what_is_no_surrogate_is_refused(name: str, said: str, surrogates: Path) -> None:
    config = load_config(None, {"learner.surrogate": f"{surrogates}:{name}"})
    with pytest.raises(ValueError, match=f"learner.surrogate = .*{name}': .*{said}"):
        try_user_code(config, QUESTION)

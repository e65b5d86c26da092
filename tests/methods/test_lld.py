"""LLD's term by hand: which tokens are preserved, which gate is open, and what divides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from calibadv.losses import likelihood_drop
from calibadv.methods import make_method
from calibadv.methods.lld import lld
from calibadv.methods.method import ExtraLoss, LossTokens, StepFacts
from calibadv.types import TurnKind
from tests.build import group, trajectory

# Advantages +, -, 0: the second response is not preserved.
GROUP = group(trajectory(1.0, [2, 1]), trajectory(0.0, [2, 1]), trajectory(0.5, [1, 2]))
FACTS = StepFacts(mean_searches=1.0)


def extra(**params: object) -> ExtraLoss:
    term = lld(**params).extra_loss  # type: ignore[arg-type]
    assert term is not None
    return term


def tokens(drops: Sequence[float], row: Sequence[int], turn: Sequence[int]) -> LossTokens:
    """Tokens whose log-prob fell by `drops` nats."""
    old = torch.zeros(len(drops))
    return LossTokens(old - torch.tensor(drops), old, torch.ones(len(drops)), torch.tensor(row), torch.tensor(turn))


def test_preserved_are_responses_of_no_negative_advantage() -> None:
    term, credit = extra(), lld().advantages(GROUP)
    assert [r.tolist() for r in term.weights(GROUP, credit, FACTS)] == [[1, 1, 1], [0, 0, 0], [1, 1, 1]]
    assert [r.tolist() for r in term.counts(GROUP, credit)] == [[1, 1, 1], [0, 0, 0], [1, 1, 1]]


def test_all_wrong_groups_are_preserved() -> None:
    wrong = group(trajectory(0.0, [1, 1]), trajectory(0.0, [2, 1]))
    assert all(row.all() for row in extra().counts(wrong, lld().advantages(wrong)))


def test_divisor_all_counts_every_token() -> None:
    assert [r.tolist() for r in extra(divisor="all").counts(GROUP, lld().advantages(GROUP))] == [[1, 1, 1]] * 3


def test_masked_answers_weigh_half_the_mean_searches_and_at_most_one() -> None:
    credit = lld().advantages(GROUP)
    weights = extra(mask_answer=True).weights(GROUP, credit, FACTS)
    assert [r.tolist() for r in weights] == [[1, 1, 0.5], [0, 0, 0], [1, 0.5, 0.5]]
    weights = extra(mask_answer=True).weights(GROUP, credit, StepFacts(mean_searches=3.0))
    assert [r.tolist() for r in weights] == [[1, 1, 1], [0, 0, 0], [1, 1, 1]]
    # The divisor counts tokens, whatever they weigh.
    assert extra(mask_answer=True).counts(GROUP, credit)[0].tolist() == [1, 1, 1]


def test_a_last_turn_that_is_no_answer_is_not_masked() -> None:
    first = GROUP.trajectories[0]
    void = replace(first, turns=(first.turns[0], replace(first.turns[1], kind=TurnKind.VOID)))
    odd = replace(GROUP, trajectories=(void, *GROUP.trajectories[1:]))
    assert extra(mask_answer=True).weights(odd, lld().advantages(odd), FACTS)[0].tolist() == [1, 1, 1]


def test_gates_by_hand() -> None:
    # Row 0: turn 0 falls by 3 - 1, turn 1 falls by 1 - 2; the row as a whole falls by 1. Row 1 rises by 1.
    seen = tokens([3, -1, 1, -2, 1, -2], [0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0])
    assert extra(gate="token").loss(seen).item() == 3 + 1 + 1
    assert extra(gate="turn").loss(seen).item() == 3
    assert extra(gate="response").loss(seen).item() == 3 + 1


def test_equal_turn_numbers_of_two_rows_are_two_gates() -> None:
    seen = tokens([2, -3], [0, 1], [1, 1])
    assert extra(gate="turn").loss(seen).item() == 2


def test_the_term_is_exactly_zero_at_the_old_policy() -> None:
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss = likelihood_drop(logprobs, logprobs.detach(), torch.ones(2))
    loss.backward()
    assert loss.item() == 0
    assert logprobs.grad is not None
    assert not logprobs.grad.any()


def test_the_gradient_raises_the_tokens_that_fell() -> None:
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    likelihood_drop(logprobs, torch.tensor([-0.5, -3.0]), torch.tensor([0.5, 1.0])).backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-0.5, 0]


def test_a_negative_coefficient_is_refused() -> None:
    with pytest.raises(ValueError, match="coef is -1"):
        make_method("lld", {"coef": -1})

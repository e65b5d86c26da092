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


@pytest.mark.parametrize(("searches", "weight"), [(0.0, 0.0), (1.0, 0.0), (1.25, 0.25), (2.0, 1.0), (3.5, 1.0)])
def test_masked_answers_weigh_the_mean_searches_above_one(searches: float, weight: float) -> None:
    # Official rule: min(max(V - 1, 0), 1).
    credit, term = lld().advantages(GROUP), extra(mask_answer=True)
    weights = term.weights(GROUP, credit, StepFacts(mean_searches=searches))
    assert [r.tolist() for r in weights] == [[1, 1, weight], [0, 0, 0], [1, weight, weight]]
    # The divisor counts tokens, whatever they weigh.
    assert term.counts(GROUP, credit)[0].tolist() == [1, 1, 1]


def test_of_an_answer_turn_only_the_tokens_of_the_answer_span_are_masked() -> None:
    thinking = trajectory(1.0, [2, 5])
    answer = replace(thinking.turns[1], answer_span=(2, 4))  # think, think, <answer>Ada, </answer>, end of sequence
    g = group(replace(thinking, turns=(thinking.turns[0], answer)), trajectory(0.0, [1, 1]))
    weights = extra(mask_answer=True).weights(g, lld().advantages(g), StepFacts(mean_searches=1.5))
    assert weights[0].tolist() == [1, 1, 1, 1, 0.5, 0.5, 1]


def test_the_calibadv_papers_baseline_has_a_tenth_a_token_gate_and_positive_advantages_only() -> None:
    term, credit = extra(variant="calibadv_paper"), lld(variant="calibadv_paper").advantages(GROUP)
    assert term.coef == 0.1
    assert [r.tolist() for r in term.weights(GROUP, credit, FACTS)] == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert [r.tolist() for r in term.counts(GROUP, credit)] == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    wrong = group(trajectory(0.0, [1, 1]), trajectory(0.0, [2, 1]))
    assert not any(row.any() for row in term.counts(wrong, lld().advantages(wrong)))
    assert term.loss(tokens([3, -1, 1, -2], [0, 0, 0, 0], [0, 0, 1, 1])).item() == 3 + 1  # each token its own gate


def test_what_is_given_overrides_the_variant() -> None:
    assert extra().coef == 0.2
    term = extra(variant="calibadv_paper", coef=0.3, gate="response")
    assert term.coef == 0.3
    assert term.loss(tokens([3, -1], [0, 0], [0, 0])).item() == 3
    assert term.loss(tokens([1, -3], [0, 0], [0, 0])).item() == 0


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


@pytest.mark.parametrize(
    ("params", "message"), [({"coef": -1}, "coef is -1"), ({"variant": "paper"}, "variant = 'paper'")]
)
def test_wrong_parameters_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_method("lld", params)

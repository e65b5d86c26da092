"""A method is data: how to roll out, what the prompt ends with, how credit is assigned, and what the loss adds.

Most methods are `advantages` alone. The other fields are for those that sample trees, score turns, weigh tokens, train
a critic or have a loss term of their own; the trainer calls what is set and knows no method by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from calibadv.advantages.group import outcome_credit
from calibadv.advantages.silver import StepScores, silver_documents, step_scores
from calibadv.methods.reasons import Explanation
from calibadv.rewards.gold_match import GoldNeed
from calibadv.rewards.outcome import OutcomeFn
from calibadv.rewards.turns import TurnScorer
from calibadv.rollout.plans import Plan, chains
from calibadv.types import Credit, Group

if TYPE_CHECKING:
    from torch import Tensor

    from calibadv.surrogates import SurrogateFn


def silver_scores(group: Group) -> StepScores:
    """The paper's step scores, which diagnose every method's groups, also where the method does not use them."""
    return step_scores(group, silver_documents(group))


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What is known of a whole training step, over all learners."""

    mean_searches: float  # valid searches a rollout
    deviation: float = 1.0  # of rewards around their question's mean, unbiased


@dataclass(frozen=True, slots=True)
class LossTokens:
    """The action tokens [N] of a micro-batch, as a loss term sees them."""

    logprobs_N: Tensor  # of the policy that is trained; the only one with a gradient
    old_logprobs_N: Tensor
    weights_N: Tensor  # the term's own, see `ExtraLoss.weights`
    row_N: Tensor  # index of the token's trajectory in the micro-batch
    turn_N: Tensor  # index of the token's turn in its trajectory


@dataclass(frozen=True, slots=True)
class ExtraLoss:
    """coef * sum of `loss` / sum of `counts`, both over the whole mini-batch and all learners. No counts: no term."""

    coef: float
    weights: Callable[[Group, Credit, StepFacts], Credit]  # of each token in the term; 0: it has no part in it
    counts: Callable[[Group, Credit], Credit]  # 1 for each token that the divisor counts, else 0
    loss: Callable[[LossTokens], Tensor]  # summed over the tokens


@dataclass(frozen=True, slots=True)
class Critic:
    """A learned value function: what it learns from, and how its values become advantages (GAE)."""

    rewards: Callable[[Group], Credit]  # token rewards [N]
    kind: Literal["model", "head"] = "model"  # a second model, or a head on the policy's own (detached) features
    lr: float | None = None  # constant; None: the policy's peak
    gamma: float = 1.0
    lam: float = 1.0
    clip: float = 0.5  # of a value around its old one
    whiten: bool = True  # advantages over the whole step
    kl_reward: float = 0.0  # of log(old / reference), taken off each token's reward


@dataclass(frozen=True, slots=True)
class Method:
    """One way to train."""

    name: str
    advantages: Callable[[Group], Credit]  # with a critic: those of a critic that says 0
    plan: Callable[[int], Plan] = chains  # rollouts a question -> plan
    prefill: str = ""  # ends the prompt and every observation; never trained
    reward: OutcomeFn | None = None  # what a rollout is worth; None: `reward.outcome`
    base: Callable[[Group], Credit] = outcome_credit  # the credit before calibration, to show beside `advantages`
    scores: Callable[[Group], StepScores] = silver_scores
    score_turns: Callable[[], TurnScorer] | None = None  # called once an engine; sets `Turn.reward`
    gold: GoldNeed | None = (
        None  # what its rewards read of gold passages: filled in, and refused where too few are known
    )
    by_step_deviation: bool = False  # the credit is divided by `StepFacts.deviation` (REINFORCE++)
    keep: Callable[[Group], bool] | None = None  # which groups train; the others are in no divisor. None: all
    weights: Callable[[Group], Credit] | None = None  # of each token in the surrogate and its divisor; None: 1
    surrogate: SurrogateFn | None = None  # what an update climbs at each token; None: `learner.surrogate`
    extra_loss: ExtraLoss | None = None
    critic: Critic | None = None
    explain: Callable[[Group], Explanation] | None = (
        None  # reasons that multiply out to `advantages`; None: it has none
    )

    @property
    def critic_kind(self) -> Literal["model", "head"] | None:
        """None where it has no critic."""
        return self.critic.kind if self.critic is not None else None

    def needs_reference(self, kl_coef: float) -> bool:
        """Whether a KL term compares the policy with the one that the run began with."""
        return kl_coef > 0 or (self.critic is not None and self.critic.kl_reward > 0)

    def trains_every_row(self, kl_coef: float, entropy_coef: float) -> bool:
        """Whether a row without advantages has a gradient too."""
        own = self.extra_loss is not None or self.surrogate is not None or self.critic is not None
        return own or kl_coef > 0 or entropy_coef > 0

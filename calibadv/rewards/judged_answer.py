"""The outcome reward of a judge model (`reward.outcome = "judge"`): whether an answer means what a golden one does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from calibadv.rewards.answer import best_over_golden, exact_match
from calibadv.rewards.judge import Endpoint, Judge
from calibadv.rewards.verdicts import answer_prompt, answer_verdict
from calibadv.types import Question, Trajectory


class UnreadableVerdict(Exception):
    """The judge replied, but not with a verdict."""


@dataclass(frozen=True)
class JudgedAnswer:
    """Asks the judge about an answer. Raises, in place of a score, where there is no verdict.

    What needs no judge costs no call: a rollout that is not well-formed or has no answer is 0, and an answer that
    equals a golden one is 1.
    """

    endpoint: Endpoint

    async def reward(self, question: Question, trajectory: Trajectory) -> float:
        """1 for a right answer of a well-formed rollout, else 0."""
        if not (trajectory.answer and trajectory.format_reward):
            return 0.0
        if best_over_golden(trajectory.answer, question.golden_answers, exact_match, question.tokens) == 1.0:
            return trajectory.format_reward
        return trajectory.format_reward * await self.verdict(question, trajectory.answer)

    async def verdict(self, question: Question, answer: str) -> float:
        """1 or 0, as the judge says of an answer."""
        prompt = answer_prompt(question, answer)
        text = (await self._judge.ask([prompt]))[prompt].text
        if text is None:
            raise ConnectionError(f"the judge {self.endpoint.model} at {self.endpoint.url} gave no reply")
        verdict = answer_verdict(text)
        if verdict is None:
            raise UnreadableVerdict(f"the judge's verdict cannot be read: {text[-80:]!r}")
        return verdict

    @cached_property
    def _judge(self) -> Judge:  # at the first question, in the engine's process: a client cannot be sent
        return Judge(self.endpoint, "such rollouts are not scored, see reward/failed_count")

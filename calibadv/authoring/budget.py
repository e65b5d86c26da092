"""A judge that is paid: what it said is kept in a file and never asked again, and it stops at a ceiling."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from calibadv.kept_answers import KeptAnswers
from calibadv.rewards.judge import Judge, Reply

GIVE_UP = 8  # calls without a reply in a row


class Spent(Exception):
    """A ceiling is reached: no further call is made."""


class NoReply(ValueError):
    """The endpoint does not answer, or does not say what is needed."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What calls cost, and how much may be spent. ValueError for what cannot be."""

    most_calls: int
    most_cost: float = math.inf  # in the currency of the prices
    price_in: float = 0.0  # of a million prompt tokens
    price_out: float = 0.0  # of a million tokens that the model writes

    def __post_init__(self) -> None:
        for name, value in (("--price-in", self.price_in), ("--price-out", self.price_out)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} {value}; expected the price of a million tokens, 0 or more")
        if self.most_calls < 1:
            raise ValueError(f"--max-calls {self.most_calls}; expected at least 1")
        if not self.most_cost > 0:
            raise ValueError(f"--max-cost {self.most_cost}; expected more than 0")
        if math.isfinite(self.most_cost) and not (self.price_in or self.price_out):
            raise ValueError("--max-cost needs prices: give --price-in and --price-out, of a million tokens")

    def cost(self, reply: Reply) -> float:
        """Of one call. `NoReply` where it has a price and the endpoint does not count tokens."""
        if not (self.price_in or self.price_out):
            return 0.0
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            raise NoReply("the endpoint does not count a call's tokens: leave the prices out, set --max-calls")
        return (reply.prompt_tokens * self.price_in + reply.completion_tokens * self.price_out) / 1e6


class PaidJudge:
    """Asks what the file does not know. A call that fails is not kept, and `ask` gives None for it."""

    def __init__(self, judge: Judge, model: str, file: Path, budget: Budget) -> None:
        """`model`: whose replies the file holds; those of another are not taken for its."""
        self._judge, self._budget = judge, budget
        self._kept: KeptAnswers[Reply] = KeptAnswers(
            file, {"model": model}, called="the file of replies", to_text=_to_text, of_text=_of_text
        )
        self.calls = self.failed = self.replayed = self.tokens = 0
        self.cost = 0.0
        self._in_flight, self._dearest, self._failed_in_a_row = 0, 0.0, 0

    async def ask(self, prompt: str) -> str | None:
        """The reply; None where the call failed. `Spent` at a ceiling, `NoReply` where one call after the other fails.

        The dearest call so far is counted for each in flight, so that the cost is exceeded by calls that are dearer.
        """
        if (known := self._kept.find(prompt)) is not None:
            self.replayed += 1
            return known.text
        if self.calls >= self._budget.most_calls:
            raise Spent(f"--max-calls {self._budget.most_calls} is reached")
        if self.cost + (self._in_flight + 1) * self._dearest > self._budget.most_cost * (1 + 1e-9):  # sums of decimals
            raise Spent(f"--max-cost {self._budget.most_cost:g} is reached")
        self.calls += 1
        self._in_flight += 1
        try:
            reply = (await self._judge.ask([prompt]))[prompt]
        finally:
            self._in_flight -= 1
        if reply.text is None:
            self.failed += 1
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= GIVE_UP:
                raise NoReply(f"{GIVE_UP} calls in a row had no reply: mend --judge and --judge-model, and call again")
            return None
        self._failed_in_a_row = 0
        cost = self._budget.cost(reply)
        self.cost, self._dearest = self.cost + cost, max(self._dearest, cost)
        self.tokens += (reply.prompt_tokens or 0) + (reply.completion_tokens or 0)
        return self._kept.keep(prompt, reply).text

    def close(self) -> None:
        """Closes the file."""
        self._kept.close()


def _to_text(reply: Reply) -> str:
    return json.dumps([reply.text, reply.seconds, reply.prompt_tokens, reply.completion_tokens])


def _of_text(text: str) -> Reply:
    return Reply(*json.loads(text))

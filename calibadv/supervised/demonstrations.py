"""Gold dialogues as token ids, made by the rollout itself: the agent runs on the gold turns and the real search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from calibadv.batching import Row, to_row
from calibadv.cluster.factories import AnyDialogue
from calibadv.data.gold_dialogues import Hop, answer_thought, gold_hops, search_thought
from calibadv.rewards.answer import normalise
from calibadv.rollout.agent import Agent, Limits
from calibadv.rollout.chat_template import parts_at
from calibadv.rollout.protocols import Generation, Result, Sampling, SearchFn, StopReason
from calibadv.tags import PRE_THINK
from calibadv.types import IntArray, Question, Trajectory, Turn, TurnKind

_UNCUT = 1 << 30  # tokens


class Outcome(StrEnum):
    """What becomes of a question."""

    KEPT = "kept"
    UNSUPPORTED = "unsupported"  # no golden answer stands in what the search returned
    TOO_LONG = "too long"  # for the rollout's limits of turns or tokens
    NO_DECOMPOSITION = "without decomposition"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One dialogue in both forms in which a method may meet it; action tokens are those that the policy writes."""

    question_id: str
    written: Row  # the policy writes every <think>
    prefilled: Row  # PreThink: <think> ends prompt and observations


async def demonstrations(
    questions: Iterable[Question],
    dialogue: AnyDialogue,
    search: SearchFn,
    limits: Limits,
    *,
    keep_unsupported: bool = False,
) -> tuple[list[Demonstration], Counter[Outcome]]:
    """(the demonstrations that are kept, in the questions' order; how many questions met each outcome).

    A question is kept if both its forms are; they are one where no think can be opened in the chat template. Support is
    the golden answer as words in an observation, which a yes or no hardly ever is: comparisons need `keep_unsupported`.
    """
    kept: list[Demonstration] = []
    outcomes: Counter[Outcome] = Counter(dict.fromkeys(Outcome, 0))
    written, prefilled = (replace(dialogue, prefill=prefill) for prefill in ("", PRE_THINK))
    both = (written,) if any(problem.fatal for problem in prefilled.problems()) else (written, prefilled)
    for question in questions:
        forms = []
        for form in both:
            row, outcome = await _form(question, form, search, limits, keep_unsupported)
            if row is None:
                break
            forms.append(row)
        else:
            kept.append(Demonstration(question.id, forms[0], forms[-1]))
        outcomes[outcome] += 1
    return kept, outcomes


async def gold_trajectory(
    question: Question, hops: Sequence[Hop], dialogue: AnyDialogue, search: SearchFn, limits: Limits
) -> tuple[Trajectory, bool]:
    """(the rollout of a policy that writes the gold turns, whether it read its answer). Log-probs are 0.

    Token for token what a rollout of these turns is: `Agent` makes it. Raises what `Agent.roll` and `search` do.
    """
    policy = _GoldPolicy(dialogue, question, hops)
    agent = Agent(dialogue, policy, search, limits)
    trajectory = await agent.roll(question, temperature=0.0, seed_of_turn=lambda _: 0)
    return trajectory, policy.read_answer


async def _form(
    question: Question, dialogue: AnyDialogue, search: SearchFn, limits: Limits, keep_unsupported: bool
) -> tuple[Row | None, Outcome]:
    hops = gold_hops(question)
    if not hops:
        return None, Outcome.NO_DECOMPOSITION
    if len(hops) > limits.max_turns or len(dialogue.prompt_ids(question.text)) > limits.max_prompt_tokens:
        return None, Outcome.TOO_LONG
    trajectory, supported = await gold_trajectory(question, hops, dialogue, search, limits)
    if trajectory.infra_failed:
        raise ValueError(f"the search gave no answer for question {question.id!r}: look at the search settings")
    if trajectory.truncated or trajectory.num_tokens >= limits.max_tokens:
        return None, Outcome.TOO_LONG
    if trajectory.format_reward != 1.0:
        raise ValueError(
            f"the demonstration of question {question.id!r} is not in the format: "
            f"{[turn.text for turn in trajectory.turns]}; expected the tokenizer to give back the text that it was "
            "given: use another model's"
        )
    if not (supported or keep_unsupported):
        return None, Outcome.UNSUPPORTED
    ended = replace(trajectory, turns=(*trajectory.turns[:-1], _ended(trajectory.turns[-1], dialogue)))
    return to_row(ended, np.zeros(ended.num_actions, dtype=np.float32)), Outcome.KEPT


def _ended(turn: Turn, dialogue: AnyDialogue) -> Turn:
    assert turn.kind is TurnKind.ANSWER
    return replace(
        turn,
        action_ids=np.append(turn.action_ids, np.int64(dialogue.tokenizer.eos_token_id)),
        logprobs=np.append(turn.logprobs, np.float32(0)),
    )


class _GoldPolicy:
    """A `GenerateFn` that writes the gold turns, each in the light of the observations before it."""

    def __init__(self, dialogue: AnyDialogue, question: Question, hops: Sequence[Hop]) -> None:
        self._dialogue, self._question, self._hops = dialogue, question, hops
        self._turn = 0
        self._action_ids = np.zeros(0, dtype=np.int64)  # of the last turn
        self._known_tokens = 0  # of the context: up to the end of the last action
        self._read = ""  # normalised words of all observations, with a space around each
        self.read_answer = False

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
        if self._turn:
            self._look(prompt_ids[self._known_tokens :])
        tokenizer = self._dialogue.tokenizer
        ids = np.asarray(tokenizer.encode(self._next(), add_special_tokens=False), dtype=np.int64)
        fits = len(ids) <= sampling.max_tokens
        ids = ids[: sampling.max_tokens]
        self._turn += 1
        self._action_ids, self._known_tokens = ids, len(prompt_ids) + len(ids)
        stop = StopReason.EOS if ids[-1] == tokenizer.eos_token_id else StopReason.TAG
        return Generation(ids, np.zeros(len(ids), dtype=np.float32), stop if fits else StopReason.LENGTH)

    def _next(self) -> str:
        if self._turn < len(self._hops):
            hop, previous = self._hops[self._turn], self._hops[self._turn - 1] if self._turn else None
            read = previous is not None and self._has_read(previous.answer)
            return self._dialogue.turn_text(search_thought(hop, previous, read=read), query=hop.query)
        golden = self._question.golden_answers
        answer = next((answer for answer in golden if self._has_read(answer)), None)
        self.read_answer = answer is not None
        answer = golden[0] if answer is None else answer
        return self._dialogue.turn_text(answer_thought(answer, read=self.read_answer), answer=answer)

    def _look(self, observation_ids: IntArray) -> None:
        """Reads the documents: an observation without what it would hold of a search that found nothing."""
        none = self._dialogue.text(self._dialogue.observed([Result()], self._action_ids, _UNCUT))
        text = self._dialogue.text(observation_ids)
        before = parts_at(none, text)
        behind = parts_at(none[before:][::-1], text[before:][::-1])
        self._read += f" {normalise(text[before : len(text) - behind], self._question.tokens)} "

    def _has_read(self, answer: str) -> bool:
        words = normalise(answer, self._question.tokens)
        return bool(words) and f" {words} " in self._read

"""One trajectory: think, search, read, … answer, over any GenerateFn and SearchFn.

Token-exact: what the engine sampled is appended as it is, observations are encoded once, and the context is never cut
from the left. A rollout whose next turn would not fit ends, marked truncated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from calibadv.rewards.answer import best_over_golden
from calibadv.rewards.format import format_reward
from calibadv.rollout.protocols import (
    DialogueFormat,
    GenerateFn,
    Generation,
    Sampling,
    SearchFailed,
    SearchFn,
    StopReason,
)
from calibadv.rollout.spans import token_span
from calibadv.tags import answer_characters, parse_action, up_to_closing_tag
from calibadv.types import IntArray, Question, Trajectory, Turn, TurnKind

EMPTY = np.zeros(0, dtype=np.int64)
OnVoidTurn = Literal["stop", "retry"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Token and turn limits of a rollout (defaults: CalibAdv's released script)."""

    max_turns: int = 4  # searches; the turn after the last one can only answer
    max_prompt_tokens: int = 2048
    max_turn_tokens: int = 1024
    max_observation_tokens: int = 2048
    max_tokens: int = 16384  # the whole sequence

    def check_prompt(self, prompt_ids: IntArray, question: Question) -> IntArray:
        """The prompt's ids [P] as they are; ValueError where they exceed the prompt budget."""
        if len(prompt_ids) > self.max_prompt_tokens:
            raise ValueError(
                f"the prompt of question {question.id!r} has {len(prompt_ids)} tokens, the budget is "
                f"{self.max_prompt_tokens}: raise --rollout.max_prompt_tokens or drop the question"
            )
        return prompt_ids


@dataclass(frozen=True)
class Agent:
    """Rolls out one question at a time; holds nothing between rollouts."""

    dialogue: DialogueFormat
    generate: GenerateFn
    search: SearchFn
    limits: Limits = Limits()
    require_search: bool = True
    on_void_turn: OnVoidTurn = "stop"

    async def roll(
        self,
        question: Question,
        *,
        temperature: float,
        seed_of_turn: Callable[[int], int],
        top_p: float = 1.0,
        policy_version: int = 0,
        prefix: tuple[Turn, ...] = (),
    ) -> Trajectory:
        """One trajectory of `question`. A search that fails for good gives one with `infra_failed`, never a score.

        `prefix`: turns of another trajectory of this question, each with an observation, that this one starts with as
        they are. Raises ValueError for a prompt longer than `limits.max_prompt_tokens`.
        """
        prompt_ids = self.limits.check_prompt(self.dialogue.prompt_ids(question.text), question)
        context = np.concatenate([prompt_ids, *(ids for t in prefix for ids in (t.action_ids, t.observation_ids))])
        turns, truncated, infra_failed = list(prefix), False, False
        for index in range(len(prefix), self.limits.max_turns + 1):
            room = min(self.limits.max_turn_tokens, self.limits.max_tokens - len(context))
            assert room > 0, (
                "observations that leave no room are not appended, and the prompt budget is below max_tokens"
            )
            begun_s = time.perf_counter()
            generation = await self.generate(context, Sampling(room, temperature, seed_of_turn(index), top_p=top_p))
            turn, cut = replace(self._turn(generation), generate_s=time.perf_counter() - begun_s), False
            try:
                turn, cut = await self._observe(turn, len(context), may_continue=index < self.limits.max_turns)
            except SearchFailed:
                infra_failed = True
            turns.append(turn)
            truncated = cut or (turn.kind is TurnKind.VOID and generation.stop is StopReason.LENGTH)
            if infra_failed or truncated or not len(turn.observation_ids):
                break
            context = np.concatenate([context, turn.action_ids, turn.observation_ids])
        return self._trajectory(question, prompt_ids, tuple(turns), truncated, infra_failed, policy_version)

    def _turn(self, generation: Generation) -> Turn:
        text = self.dialogue.text(generation.ids)
        if generation.stop is StopReason.TAG:
            text = up_to_closing_tag(text)
        action = parse_action(text)
        characters = answer_characters(text) if action.kind is TurnKind.ANSWER else None
        span = token_span(generation.ids, *characters, self.dialogue.text) if characters else None
        return Turn(action.kind, generation.ids, generation.logprobs, EMPTY, text, action.query, answer_span=span)

    async def _observe(self, turn: Turn, context_tokens: int, *, may_continue: bool) -> tuple[Turn, bool]:
        """The turn with what the environment answers (nothing: the rollout ends), and whether that did not fit."""
        doc_ids: tuple[str, ...] = ()
        if not may_continue or turn.kind is TurnKind.ANSWER:
            return turn, False
        if turn.kind is TurnKind.SEARCH:
            assert turn.query is not None
            begun_s = time.perf_counter()
            documents = await self.search(turn.query)
            turn = replace(turn, search_s=time.perf_counter() - begun_s)
            doc_ids = tuple(document.id for document in documents)
            observation = self.dialogue.observation_ids(documents, self.limits.max_observation_tokens)
        elif self.on_void_turn == "retry":
            observation = self.dialogue.retry_ids()
        else:
            return turn, False
        fits = context_tokens + len(turn.action_ids) + len(observation) < self.limits.max_tokens
        return replace(turn, observation_ids=observation if fits else EMPTY, doc_ids=doc_ids), not fits

    def _trajectory(
        self,
        question: Question,
        prompt_ids: IntArray,
        turns: tuple[Turn, ...],
        truncated: bool,
        infra_failed: bool,
        policy_version: int,
    ) -> Trajectory:
        last = turns[-1]
        answer = parse_action(last.text).answer if last.kind is TurnKind.ANSWER else None
        answer_reward = best_over_golden(answer, question.golden_answers, tokens=question.tokens)
        well_formed = format_reward(turns, prefill=self.dialogue.prefill, require_search=self.require_search)
        return Trajectory(
            prompt_ids=prompt_ids,
            turns=turns,
            answer=answer,
            answer_reward=answer_reward,
            format_reward=well_formed,
            reward=answer_reward * well_formed,
            policy_version=policy_version,
            truncated=truncated,
            forced_final=last.kind is TurnKind.SEARCH and len(turns) == self.limits.max_turns + 1,
            infra_failed=infra_failed,
        )

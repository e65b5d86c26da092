"""One trajectory: think, search, read, … answer, over any GenerateFn and SearchFn.

Token-exact: what the engine sampled is appended as it is, observations are encoded once, and the context is never cut
from the left. A rollout whose next turn would not fit ends, marked truncated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from calibadv.rewards.answer import best_over_golden
from calibadv.rollout.protocols import (
    SEARCH,
    Answered,
    Call,
    Dialogue,
    GenerateFn,
    Generation,
    NoRoom,
    Result,
    Said,
    Sampled,
    Sampling,
    SearchFailed,
    SearchFn,
    Step,
    StopReason,
    ToolFailed,
    ToolFn,
    query_of,
)
from calibadv.rollout.spans import token_span
from calibadv.types import CalledTool, IntArray, Question, Trajectory, Turn, TurnKind

EMPTY = np.zeros(0, dtype=np.int64)
NO_CALL_LEFT = "Error: no call is left. Give the answer."
NO_QUERY = "Error: search needs a 'query', which is a text."
SHOWN = 2_000  # characters of a tool's text that people are shown
UNKNOWN = "unknown"  # the tool of a call of one that there is not
OnVoidTurn = Literal["stop", "retry"]
Tell = Callable[[Step], None]
"""Is told of each step of a rollout as it happens; what it does changes nothing of the rollout."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Token and turn limits of a rollout (defaults: CalibAdv's released script)."""

    max_turns: int = 4  # with calls, and calls in all; the turn after the last one can only answer
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

    dialogue: Dialogue
    generate: GenerateFn
    search: SearchFn
    limits: Limits = Limits()
    require_search: bool = True
    on_void_turn: OnVoidTurn = "stop"
    tools: Mapping[str, ToolFn] = field(default_factory=dict)  # beside the search

    async def roll(
        self,
        question: Question,
        *,
        temperature: float,
        seed_of_turn: Callable[[int], int],
        top_p: float = 1.0,
        policy_version: int = 0,
        prefix: tuple[Turn, ...] = (),
        tell: Tell = lambda _: None,
    ) -> Trajectory:
        """One trajectory of `question`. A tool that fails for good gives one with `infra_failed`, never a score.

        `prefix`: turns of another trajectory of this question, each with an observation, that this one starts with as
        they are. `tell` hears of each turn as it is sampled and as it is answered. Raises ValueError for a prompt
        longer than `limits.max_prompt_tokens`.
        """
        prompt_ids = self.limits.check_prompt(self.dialogue.prompt_ids(question.text), question)
        context = np.concatenate([prompt_ids, *(ids for t in prefix for ids in (t.action_ids, t.observation_ids))])
        turns, answer, truncated, infra_failed = list(prefix), None, False, False
        for index in range(len(prefix), self.limits.max_turns + 1):
            room = min(self.limits.max_turn_tokens, self.limits.max_tokens - len(context))
            assert room > 0, (
                "observations that leave no room are not appended, and the prompt budget is below max_tokens"
            )
            begun_s = time.perf_counter()
            sampling = Sampling(room, temperature, seed_of_turn(index), self.dialogue.stop, top_p)
            generation = await self.generate(context, sampling)
            said = self.dialogue.said(generation)
            answer = said.answer
            tell(Sampled(index, said))
            turn = replace(self._turn(said, generation), generate_s=time.perf_counter() - begun_s)
            truncated = turn.kind is TurnKind.VOID and generation.stop is StopReason.LENGTH
            try:
                if index < self.limits.max_turns and not truncated:
                    calls_left = self.limits.max_turns - sum(turn.calls for turn in turns)
                    turn, truncated = await self._observe(turn, index, said.calls, calls_left, len(context), tell)
            except (SearchFailed, ToolFailed):
                infra_failed = True
            turns.append(turn)
            if infra_failed or truncated or not len(turn.observation_ids):
                break
            context = np.concatenate([context, turn.action_ids, turn.observation_ids])
        return self._trajectory(question, prompt_ids, tuple(turns), answer, truncated, infra_failed, policy_version)

    def _turn(self, said: Said, generation: Generation) -> Turn:
        characters = said.answer_characters
        span = token_span(generation.ids, *characters, self.dialogue.text) if characters else None
        return Turn(said.kind, generation.ids, generation.logprobs, EMPTY, said.text, said.query, answer_span=span)

    async def _observe(
        self, turn: Turn, index: int, calls: Sequence[Call], calls_left: int, context_tokens: int, tell: Tell
    ) -> tuple[Turn, bool]:
        """The turn with what the environment answers (nothing: the rollout ends), and whether that did not fit."""
        budget = self.limits.max_observation_tokens
        if turn.kind in (TurnKind.SEARCH, TurnKind.CALL):
            begun_s = time.perf_counter()
            carried_out, too_many = calls[:calls_left], calls[calls_left:]
            searched = any(call.tool == SEARCH and query_of(call) for call in carried_out)
            answered = await self._results(carried_out)
            given = [result for result, _ in answered] + [Result(text=NO_CALL_LEFT)] * len(too_many)
            results = [replace(result, tool=self._name(call)) for call, result in zip(calls, given, strict=True)]
            tell(Answered(index, tuple(calls), tuple(results)))
            turn = replace(
                turn,
                kind=TurnKind.SEARCH if searched else TurnKind.CALL,
                search_s=time.perf_counter() - begun_s,
                called=tuple(
                    self._called(call, result, seconds)
                    for call, (result, seconds) in zip(carried_out, answered, strict=True)
                ),
                doc_ids=tuple(document.id for result in results for document in result.documents),
            )
            try:
                observation = self.dialogue.observed(results, turn.action_ids, budget)
            except NoRoom:  # for so many calls
                return turn, True
        elif turn.kind is TurnKind.VOID and self.on_void_turn == "retry":
            observation = self.dialogue.corrected(turn.action_ids, budget)
        else:
            return turn, False
        fits = context_tokens + len(turn.action_ids) + len(observation) < self.limits.max_tokens
        return replace(turn, observation_ids=observation if fits else EMPTY), not fits

    def _called(self, call: Call, result: Result, seconds: float) -> CalledTool:
        return CalledTool(self._name(call), None if result.text is None else result.text[:SHOWN], seconds)

    def _name(self, call: Call) -> str:
        return call.tool if call.tool in (SEARCH, *self.tools) else UNKNOWN

    async def _results(self, calls: Sequence[Call]) -> list[tuple[Result, float]]:
        if len(calls) == 1:  # without a task of its own: a rollout in tags takes its turns as the loop gives them
            return [await self._timed(calls[0])]
        return await asyncio.gather(*map(self._timed, calls))

    async def _timed(self, call: Call) -> tuple[Result, float]:
        begun_s = time.perf_counter()
        return await self._result(call), time.perf_counter() - begun_s

    async def _result(self, call: Call) -> Result:
        """What the call gives. What the policy got wrong it is told; what a tool got wrong raises."""
        if call.tool == SEARCH:
            query = query_of(call)
            return Result(await self.search(query)) if query else Result(text=NO_QUERY)
        if call.tool in self.tools:
            return await self.tools[call.tool](call.arguments)
        return Result(text=f"Error: there is no tool {call.tool!r}, only {', '.join([SEARCH, *self.tools])}.")

    def _trajectory(
        self,
        question: Question,
        prompt_ids: IntArray,
        turns: tuple[Turn, ...],
        answer: str | None,
        truncated: bool,
        infra_failed: bool,
        policy_version: int,
    ) -> Trajectory:
        last = turns[-1]
        answer_reward = best_over_golden(answer, question.golden_answers, tokens=question.tokens)
        well_formed = self.dialogue.format_reward(turns, require_search=self.require_search)
        return Trajectory(
            prompt_ids=prompt_ids,
            turns=turns,
            answer=answer,
            answer_reward=answer_reward,
            format_reward=well_formed,
            reward=answer_reward * well_formed,
            policy_version=policy_version,
            truncated=truncated,
            forced_final=last.kind in (TurnKind.SEARCH, TurnKind.CALL) and len(turns) == self.limits.max_turns + 1,
            infra_failed=infra_failed,
        )

"""All rollouts of one question, as one Group or as the report that the environment failed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from calibadv.measures import token_budget
from calibadv.rewards.judged_answer import UnreadableVerdict
from calibadv.rewards.outcome import Outcome, RewardFailed
from calibadv.rewards.turns import TurnScorer, with_turn_rewards
from calibadv.rollout.agent import Agent, Limits, OnVoidTurn
from calibadv.rollout.plans import Plan, Prefix, chains
from calibadv.rollout.protocols import (
    Dialogue,
    GenerateFn,
    Generation,
    Result,
    Sampling,
    SearchFn,
    ToolFailed,
    ToolFn,
)
from calibadv.rollout.seeds import sampling_seed
from calibadv.rollout.tally import Tally
from calibadv.types import Document, Group, IntArray, Phase, Question, Trajectory

logger = logging.getLogger(__name__)

Keep = Callable[[Group], bool]
"""Whether a group trains."""

PLAN_STREAM = -1  # in place of a sample's index: the plan's own draws


@dataclass(frozen=True, slots=True)
class RolledGroup:
    """What came of one question. `group` is None where the search tool failed for good: nothing is scored then."""

    group: Group | None
    infra_failed: int = 0  # rollouts that the environment failed, those sampled again included
    documents: Mapping[str, Document] | None = field(default_factory=dict)  # retrieved; None: not written out
    counts: Mapping[str, float] = field(default_factory=dict)  # what the turn scorer reports


@dataclass(frozen=True)
class GroupRoller:
    """Rolls out a question's group by a plan; greedy once per question in evaluation."""

    dialogue: Dialogue
    search: SearchFn
    plan: Plan
    run_seed: int
    temperature: float = 1.0
    top_p: float = 1.0  # of training rollouts; greedy ones need none
    limits: Limits = field(default_factory=Limits)
    require_search: bool = True
    on_void_turn: OnVoidTurn = "stop"
    infra_retries: int = 2
    outcome: Outcome = field(default_factory=Outcome)  # the reward of each rollout
    score_turns: TurnScorer | None = None  # of training groups
    tools: Mapping[str, ToolFn] = field(default_factory=dict)  # beside the search
    tally: Tally = field(default_factory=Tally, compare=False)  # told of everything that is done

    async def train(self, question: Question, generate: GenerateFn, *, step: int, version: int) -> RolledGroup:
        """The method's plan at the run's temperature, seeded by (run seed, step, question, sample), turns scored."""
        rolled = await self._roll(question, generate, self.plan, self.temperature, Phase.TRAIN, step, version)
        if self.score_turns is None or rolled.group is None:
            return rolled
        assert rolled.documents is not None
        try:
            scores = await self.score_turns(rolled.group, rolled.documents)
        except RewardFailed as error:
            logger.warning("%s; the question is left out", error)
            return replace(rolled, group=None, counts={**rolled.counts, "reward/failed_count": 1.0})
        return replace(
            rolled, group=with_turn_rewards(rolled.group, scores.rewards), counts={**rolled.counts, **scores.counts}
        )

    async def train_one_of(
        self, questions: Sequence[Question], keep: Keep, generate: GenerateFn, *, step: int, version: int
    ) -> RolledGroup:
        """`train` of one question after the other, up to the first group that `keep` lets train (DAPO, 2503.14476).

        That group, or the first question's where there is none. A first question that the environment failed is not
        replaced. Counted: groups rolled out beyond one, tokens sampled in those that came whole and were not chosen,
        and whatever each of them counts.
        """
        rolled: list[RolledGroup] = []
        trains = False
        for question in questions:
            rolled.append(last := await self.train(question, generate, step=step, version=version))
            trains = last.group is not None and keep(last.group)
            if trains or rolled[0].group is None:
                break
        chosen = rolled[-1] if trains else rolled[0]
        others = [each.group for each in rolled if each is not chosen and each.group is not None]
        counts = Counter(
            {
                "rollout/spare_groups": float(len(rolled) - 1),
                "rollout/spare_tokens": float(token_budget(others)[0]),
            }
        )
        for each in rolled:
            counts.update(each.counts)
        return replace(chosen, infra_failed=sum(each.infra_failed for each in rolled), counts=counts)

    async def evaluate(self, question: Question, generate: GenerateFn, *, step: int, version: int) -> RolledGroup:
        """One greedy rollout."""
        return await self._roll(question, generate, chains(1), 0.0, Phase.EVAL, step, version)

    async def _roll(
        self,
        question: Question,
        generate: GenerateFn,
        plan: Plan,
        temperature: float,
        phase: Phase,
        step: int,
        version: int,
    ) -> RolledGroup:
        seen: dict[str, Document] = {}
        failures = unscored = unreadable = 0
        tool_failures: Counter[str] = Counter()

        async def search(query: str) -> tuple[Document, ...]:
            documents = await self.search(query)
            seen.update((document.id, document) for document in documents)
            self.tally.add((phase, step), searches=1)
            return documents

        async def counted(prompt_ids: IntArray, sampling: Sampling) -> Generation:
            generation = await generate(prompt_ids, sampling)
            self.tally.add((phase, step), turns=1)
            return generation

        def watched(name: str, tool: ToolFn) -> ToolFn:
            async def call(arguments: Mapping[str, Any]) -> Result:
                try:
                    return await tool(arguments)
                except ToolFailed:
                    tool_failures[name] += 1
                    raise

            return call

        tools = {name: watched(name, tool) for name, tool in self.tools.items()}
        agent = Agent(self.dialogue, counted, search, self.limits, self.require_search, self.on_void_turn, tools)

        async def roll(sample: int, prefix: Prefix = ()) -> Trajectory:
            nonlocal failures, unscored, unreadable
            for attempt in range(self.infra_retries + 1):
                trajectory = await agent.roll(
                    question,
                    temperature=temperature,
                    top_p=self.top_p if temperature > 0 else 1.0,
                    seed_of_turn=self._seeds(question, step, sample, attempt),
                    policy_version=version,
                    prefix=prefix,
                )
                if not trajectory.infra_failed:
                    try:
                        trajectory = await self.outcome(question, trajectory)
                    except RewardFailed as error:  # to sample again would not help
                        logger.warning("%s; the question is left out", error)
                        unscored += 1
                        unreadable += isinstance(error.__cause__, UnreadableVerdict)
                        trajectory = replace(trajectory, infra_failed=True)
                    break
                failures += 1
            self.tally.add((phase, step), rollouts=1)
            return trajectory

        trajectories = await plan(roll, sampling_seed(self.run_seed, step, question.id, PLAN_STREAM))
        complete = not any(trajectory.infra_failed for trajectory in trajectories)
        lost = {"reward/failed_count": float(unscored), "reward/unreadable_count": float(unreadable)}
        lost |= {f"tool/{name}_failed": float(count) for name, count in tool_failures.items()}
        counts = {name: count for name, count in lost.items() if count}
        return RolledGroup(Group(question, trajectories) if complete else None, failures, seen, counts)

    def _seeds(self, question: Question, step: int, sample: int, attempt: int) -> Callable[[int], int]:
        # A retried rollout samples anew: its first attempt's tokens led to the failure's query.
        stream = sample + (attempt << 32)
        return lambda turn: sampling_seed(self.run_seed, step, question.id, stream, turn)


def without_documents(rolled: RolledGroup) -> RolledGroup:
    """The same without the document texts, which only sampled groups carry to the driver."""
    return replace(rolled, documents=None)

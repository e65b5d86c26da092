"""World, policy, sampler and learner in one process: a step rolls out, assigns credit, updates and measures."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from calibadv.lab.diagnostics import step_diagnostics
from calibadv.lab.language import LabDialogue, language
from calibadv.lab.learner import LabLearner
from calibadv.lab.policy import Policy
from calibadv.lab.sampler import Measures, Sampler
from calibadv.lab.settings import LabRun
from calibadv.lab.tasks import TASKS
from calibadv.lab.warm_start import load_start
from calibadv.lab.world import World
from calibadv.rewards.outcome import Outcome, f1
from calibadv.rollout.agent import Limits
from calibadv.rollout.group import GroupRoller, RolledGroup
from calibadv.rollout.plans import chains
from calibadv.types import Group, Question

Metrics = dict[str, float]


class Laboratory:
    """World, policy, sampler and learner of one run; `step` makes one after the other."""

    def __init__(self, run: LabRun) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(run.seed)
        task = TASKS[run.task]
        self._run, self._lang, self._world = run, language(), World(run.world, task.hops)
        self._method = run.make_method()
        policy = load_start(task.start)
        self._learner = LabLearner(
            policy, self._method, run.learner(), logprobs_at=run.logprobs_at, idle_updates=run.idle_updates
        )
        self._sampling = Policy()  # what the engine holds: weights that may be older, or rounded
        self._versions: deque[dict[str, torch.Tensor]] = deque(maxlen=run.staleness + 1)
        rows = max(run.questions * max(run.samples, 6), run.evaluation_questions)
        self._sampler = Sampler(self._sampling, self._lang, rows=rows, logprobs_at=run.logprobs_at)
        self._roller = GroupRoller(
            dialogue=LabDialogue(self._lang, self._method.prefill),
            search=self._world.search,
            plan=self._method.plan(run.samples),
            run_seed=run.seed,
            temperature=run.temperature,
            top_p=run.top_p,
            limits=Limits(run.max_searches, 64, run.max_turn_tokens, 64, run.max_tokens),
            outcome=Outcome(self._method.reward or f1),
            score_turns=self._method.score_turns() if self._method.score_turns else None,
        )
        # Not greedy: of a ramble the likeliest word is never its end.
        self._examiner = replace(self._roller, plan=chains(1), temperature=1.0, top_p=1.0, score_turns=None, run_seed=0)
        self._held_out = self._world.questions(run.evaluation_questions, "held out")
        self._publish()

    def step(self, number: int) -> Metrics:
        """Rolls out one step's questions, updates the policy and returns what there is to know of it."""
        started = time.process_time()
        stream = f"train {self._run.seed} {number}"
        texts = frozenset(question.text for question in self._held_out)
        questions = self._world.questions(self._run.questions, stream, without=texts)
        self._sampler.measures = Measures()
        groups = self._roll(questions, self._roller.train, number)
        measured, self._sampler.measures = self._sampler.measures.means(), None
        rolled = time.process_time()
        updated = self._learner.update(
            groups, updates=self._run.updates, passes=self._run.passes, seed=self._run.seed * 100_003 + number
        )
        self._publish()
        metrics = step_diagnostics(groups, updated.credit, self._method, self._lang) | updated.metrics | measured
        spent = {"time/rollout_cpu_s": rolled - started, "time/step_cpu_s": time.process_time() - started}
        return {"step": float(number), **metrics, **spent}

    def sample(self, questions: int, stream: str) -> list[Group]:
        """Groups of the start's rollouts of `questions` questions of a named stream, sampled as in training."""
        return self._roll(self._world.questions(questions, stream), self._roller.train, 0)

    @property
    def policy(self) -> Policy:
        """The learner's."""
        return self._learner.policy

    def evaluate(self) -> Metrics:
        """F1, format and searches on the held-out questions, one rollout each at temperature 1, by the newest weights.

        Equal seeds in every evaluation of every run.
        """
        self._sampling.load_state_dict(self._learner.policy.state_dict())
        groups = self._roll(self._held_out, self._examiner.train, 0)
        self._load_sampling()
        finished = [group.trajectories[0] for group in groups]
        return {
            "eval/f1": float(np.mean([t.reward for t in finished])),
            "eval/format": float(np.mean([t.format_reward for t in finished])),
            "eval/searches": float(np.mean([len(t.turns) - 1 for t in finished])),
        }

    def _roll(self, questions: Sequence[Question], roll: Callable[..., Any], step: int) -> list[Group]:
        rolled: list[RolledGroup] = []

        # It returns nothing: asyncio.run would spell out, array by array, what it returns.
        async def all_of_them() -> None:
            rolled.extend(await asyncio.gather(*(roll(q, self._sampler, step=step, version=step) for q in questions)))

        asyncio.run(all_of_them())
        groups = [one.group for one in rolled]
        assert all(groups), "the laboratory's search does not fail"
        return [group for group in groups if group]

    def _publish(self) -> None:
        """The newest weights join the versions, and the oldest of those that may sample does."""
        self._versions.append({name: value.clone() for name, value in self._learner.policy.state_dict().items()})
        self._load_sampling()

    def _load_sampling(self) -> None:
        dtype = getattr(torch, self._run.sampler_dtype)
        self._sampling.load_state_dict({name: value.to(dtype).float() for name, value in self._versions[0].items()})

    def state(self) -> dict[str, Any]:
        """What `load` goes on from. Everything else is a function of the seed and the step."""
        return {"learner": self._learner.state(), "versions": list(self._versions)}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on exactly where `state` was taken."""
        self._learner.load(state["learner"])
        self._versions.clear()
        self._versions.extend(state["versions"])
        self._load_sampling()

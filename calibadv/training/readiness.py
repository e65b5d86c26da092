"""Whether the policy that a run starts from can learn at all: it writes the format, and some group has an advantage.

RL makes likelier what was rewarded, and a rollout that is not well-formed has the reward 0 whatever it knows. A policy
that never writes the format is never rewarded; all its advantages are 0, and no number of steps changes that.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from calibadv.config import SentinelConfig
from calibadv.data.questions import read_question_rows
from calibadv.refusals import short_repr
from calibadv.types import Group

log = logging.getLogger(__name__)

LOOK = 64  # questions after which a first evaluation ends if none is well-formed: 3 in 10,000 where 12 % of all are
ENOUGH_GROUPS = 32  # fewer well-formed ones may all be alike by chance
_GOLD_ROWS = 100  # questions among which gold sub-queries are looked for


class Unready(RuntimeError):
    """The run was ended at its start: its policy would learn nothing."""


@dataclass(frozen=True)
class Readiness:
    """Looks at the first evaluation and at the first step. `remedy` says how to teach the format."""

    settings: SentinelConfig
    remedy: Callable[[], str]

    def look(self, groups: Sequence[Group]) -> None:
        """Of the first `LOOK` questions of the first evaluation. Raises `Unready` where none is well-formed."""
        if groups and not well_formed(groups) and self.settings.format_floor > 0:
            self._end(self._no_format(groups))

    def evaluated(self, groups: Sequence[Group]) -> None:
        """Of the whole first evaluation. Raises `Unready` where fewer are well-formed than the floor."""
        if groups and well_formed(groups) < self.settings.format_floor * len(groups):
            self._end(self._no_format(groups))

    def stepped(self, metrics: Mapping[str, float], groups: Sequence[Group]) -> None:
        """Of the first step. Raises `Unready` where no group has an advantage.

        A few groups that are well-formed may be all right or all wrong by chance: for them `Limits` counts steps.
        """
        if metrics.get("advantage/zero_share", 0.0) < 1:
            return
        if metrics["reward/format"] < self.settings.format_floor:
            self._end(f"no group of the first step has an advantage: {self._no_format(groups)}")
        elif len(groups) >= ENOUGH_GROUPS:
            self._end(
                f"no group of the first step has an advantage: in each of its {len(groups)} all rollouts have the same "
                f"reward, {metrics['reward/mean']:.2f} in the mean (of 1). {self._no_contrast(metrics['reward/mean'])}"
            )

    def _no_format(self, groups: Sequence[Group]) -> str:
        rollouts = [trajectory for group in groups for trajectory in group.trajectories]
        written = next((t.turns[0].text for t in rollouts if t.turns and not t.format_reward), "")
        return (
            f"the policy does not write the format: {well_formed(groups)} of {len(rollouts)} rollouts are well-formed, "
            f"at least {self.settings.format_floor:.0%} are needed, and a rollout that is not has no reward; one began "
            f"with {short_repr(written)}. {self.remedy()}"
        )

    def _no_contrast(self, mean: float) -> str:
        return self.remedy() if mean < 0.5 else "These questions teach it nothing more: take harder ones"

    def _end(self, words: str) -> None:
        if self.settings.unready == "stop":
            raise Unready(f"stopped, for it would learn nothing: {words} (sentinel.unready = 'warn' trains on)")
        if self.settings.unready == "warn":
            log.warning("it will learn nothing: %s", words)


def well_formed(groups: Sequence[Group]) -> int:
    """How many rollouts have a format reward."""
    return sum(trajectory.format_reward > 0 for group in groups for trajectory in group.trajectories)


def teach(recipe: Sequence[str], *, model: str, questions: Path, corpus: Path, out: Path) -> str:
    """What to do about a policy that does not know the format: the warm start's command, as it can be pasted.

    `recipe`: `--config FILE` and overrides, whose search, prompt and limits the demonstrations get.
    """
    gold = any(row.to_question().sub_queries for row in islice(read_question_rows(questions), _GOLD_ROWS))
    python = shlex.join([_near(Path(sys.executable)), "-m", "workflows.warm_start", "gold"])
    arguments = shlex.join([*recipe, "--model", model, "--corpus", _near(corpus), "--out", _near(out)])
    shown_questions = shlex.quote(_near(questions)) if gold else "QUESTIONS"
    lacking = (
        f" (QUESTIONS with gold sub-queries, which {questions.name} has not: of HotpotQA, 2WikiMultiHopQA, MuSiQue)"
    )
    return (
        f"Teach it first: {python} {arguments} --questions {shown_questions}{'' if gold else lacking}; then train with "
        f"--model.path {shlex.quote(_near(out))} --run.overwrite true"
    )


def _near(path: Path) -> str:
    """The path from here where it lies below, else as it is."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)

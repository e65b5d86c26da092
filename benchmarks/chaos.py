"""Hurt a training run at random and hold it to an unhurt one: `python -m benchmarks.chaos [--steps N] [--seed S] …`.

Kills an engine, a search replica and a learner, each several times, with SIGKILL. The run passes if it finishes by
itself with as many trained questions as the run of the same configuration that nobody hurt.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("chaos")  # before what takes seconds to import

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.injection import Kill, Run, kill_all, plan_kills
from calibadv.checkpoints.identity import Identity, differences
from calibadv.config import Config, ConfigError, load_config
from calibadv.config.command_line import KEYS_TOO, flags, parse
from calibadv.json_lines import read_json_lines
from calibadv.tracking.run_folder import read_history
from workflows.command import run_command
from workflows.shipped import RECIPES, recipe_file

logger = logging.getLogger("benchmarks.chaos")

TRAIN = Path(__file__).parents[1] / "workflows" / "train.py"
# The pocket world in steps of a few seconds, with two of whatever is killed but the learner, which a checkpoint brings.
SMALL: Mapping[str, Any] = {
    "data.questions_per_step": 8,
    "data.test_questions": 16,
    "rollout.samples": 4,
    "rollout.engines": 2,
    "rollout.max_concurrent": 32,
    "rollout.kv_cache_gb": 0.25,
    "learner.learners": 1,
    "learner.minibatch_rollouts": 16,
    "search.replicas": 2,
    "evaluation.every": None,
    "checkpoint.every": 1,
    "checkpoint.keep_best": False,
    "tracking.sampled_rollouts": 1,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """0: it finished with the same number of trained questions. 1: it did not. 2: wrong input."""
    parser = argparse.ArgumentParser(prog="chaos.py", description=__doc__, epilog=KEYS_TOO, allow_abbrev=False)
    parser.add_argument("--config", type=recipe_file, default=RECIPES / "pocket.toml")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--kills", type=int, default=2, help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the kills; --run.seed is the run's")
    parser.add_argument("--folder", type=Path, default=Path("runs/chaos"))
    parser.add_argument("--compare", type=Path, metavar="RUN", help="an unhurt run's folder; else one is made first")
    known, overrides = parse(parser, arguments)
    planned = plan_kills(known.steps, known.kills, known.seed)
    given = dict(SMALL) | {"run.steps": known.steps, "checkpoint.max_restarts": known.kills + 1} | overrides
    _check(known.config, given)
    folder = known.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)

    straight = known.compare or folder / "unhurt"
    if known.compare is None:
        code, _ = _train(folder, "unhurt", known.config, given)
        if code != 0:
            raise ConfigError(f"the run that nobody hurt ended with exit code {code}: see {folder / 'unhurt.log'}")
    usual_s = median(line["time/step_s"] for line in read_history(straight / "metrics.jsonl") if "time/step_s" in line)
    hurt = _Hurt(known.seed, planned, usual_s)
    code, wall_s = _train(folder, "hurt", known.config, given, hurt)
    check_same(folder / "hurt", straight)
    result = {
        "command": [*sys.argv[:1], *(arguments if arguments is not None else sys.argv[1:])],
        "seed": known.seed,
        "usual_step_s": usual_s,
        "kills": [{**asdict(kill), "slowest_step_s": slowest(folder / "hurt", kill)} for kill in hurt.made],
        "planned": len(planned),
        "hurt": {**counts(folder / "hurt"), "exit_code": code, "wall_s": wall_s},
        "unhurt": counts(straight),
    }
    (folder / "chaos.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    Console().print(_kills_table(result), _runs_table(result))
    same = all(result["hurt"][name] == result["unhurt"][name] for name in ("steps", "questions", "dropped"))
    passed = code == 0 and same and len(hurt.made) == len(planned)
    logger.info("%s: %s", "passed" if passed else "FAILED", folder / "chaos.json")
    return 0 if passed else 1


class _Hurt:
    """What is done to a run while it goes on."""

    def __init__(self, seed: int, planned: list[Any], usual_s: float) -> None:
        self.seed, self.planned, self.usual_s = seed, planned, usual_s
        self.made: list[Kill] = []

    def __call__(self, run: Run) -> None:
        for kill in kill_all(run, self.planned, self.usual_s):
            self.made.append(kill)
            cost = "no step after it" if kill.recovery_s is None else f"the next step {kill.recovery_s:.1f} s later"
            logger.info("killed %s %d (%s) after step %d: %s", kill.kind, kill.pid, kill.title, kill.after_step, cost)


def _train(
    folder: Path, name: str, recipe: Path, given: Mapping[str, Any], hurt: _Hurt | None = None
) -> tuple[int, float]:
    """Exit code and wall seconds of a run, of which nothing is left running."""
    where = {"run.folder": folder, "run.name": name, "run.overwrite": True}
    command = [sys.executable, str(TRAIN), "--config", str(recipe), *flags({**given, **where})]
    begun_s = time.time()
    with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
        process = psutil.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"CI": "1", "PYTHONPATH": str(TRAIN.parents[1])},
            start_new_session=True,
        )
        run = Run(process, folder / name, begun_s)
        try:
            (folder / name / "metrics.jsonl").unlink(missing_ok=True)  # of an earlier one: no step is made yet
            logger.info("%s: %s", name, log.name)
            if hurt is not None:
                hurt(run)
            return process.wait(), time.time() - begun_s
        finally:
            run.end()


def _check(recipe: Path, given: Mapping[str, Any]) -> None:
    config = load_config(recipe, given)
    if config.learner.learners == 0 or config.search.url:
        raise ConfigError(
            "learner.learners = 0 learns in the driver, and what search.url names is not the run's: there is no one to "
            "kill"
        )


def check_same(hurt: Path, straight: Path) -> None:
    one, other = (Identity(load_config(run / "config.toml").flat(), {}) for run in (hurt, straight))
    if different := differences(other, one, Config().flat()):
        raise ConfigError(f"{straight} is not the run that {hurt} would be unhurt: {'; '.join(different)}")


def counts(folder: Path) -> dict[str, Any]:
    lines = [line for line in read_history(folder / "metrics.jsonl") if "rollout/questions" in line]
    total = {name: int(sum(line[key] for line in lines)) for name, key in _COUNTED.items()}
    return {"steps": len(lines), **total, "restarts": len(read_json_lines(folder / "restarts.jsonl"))}


_COUNTED = {
    "questions": "rollout/questions",
    "dropped": "rollout/dropped_groups",
    "infra_failed_rollouts": "rollout/infra_failed_count",
    "skipped_updates": "learner/skipped_updates",
}


def slowest(folder: Path, kill: Kill) -> float:
    """Seconds of the slower of the two steps after a kill: one that came while the policy learned shows in the second.

    0 if there is none. What a restart took is in no step.
    """
    after = range(kill.after_step + 1, kill.after_step + 3)
    return max(
        (line["time/step_s"] for line in read_history(folder / "metrics.jsonl") if line["step"] in after), default=0
    )


def _kills_table(result: dict[str, Any]) -> Table:
    usual_s = result["usual_step_s"]
    table = Table(
        "killed", "after step", "next step after, s", "slower of two steps, s", "usual step, s", title="Kills"
    )
    for kill in result["kills"]:
        cost = "never" if kill["recovery_s"] is None else f"{kill['recovery_s']:.1f}"
        table.add_row(kill["kind"], str(kill["after_step"]), cost, f"{kill['slowest_step_s']:.1f}", f"{usual_s:.1f}")
    return table


def _runs_table(result: dict[str, Any]) -> Table:
    table = Table("", "hurt", "unhurt", title="Runs")
    for name in result["unhurt"]:
        table.add_row(name.replace("_", " "), str(result["hurt"][name]), str(result["unhurt"][name]))
    return table


if __name__ == "__main__":
    sys.exit(run_command(main))

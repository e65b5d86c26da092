"""A question's greedy answer with its scores, and predictions.jsonl, which has one a line: a run's and an evaluation's.

An evaluation's file grows while questions are asked: what is in it is not asked again, whatever ended the last call.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibadv.data.errors import DataError
from calibadv.files import write_text
from calibadv.json_lines import json_line, whole_lines
from calibadv.measures import perplexity
from calibadv.rewards.answer import best_over_golden, cover_em, exact_match
from calibadv.tracking.folder_lock import FolderLock
from calibadv.types import Question, Trajectory, TurnKind

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came of one question. Where the environment failed, scores are None: nothing was answered, nor wrongly."""

    id: str
    question: str
    golden_answers: tuple[str, ...]
    answer: str | None  # None also where the policy gave none
    f1: float | None  # in [0, 1], as em, cover_em and format
    em: float | None
    cover_em: float | None
    format: float | None
    searches: int | None
    tokens: int | None  # sampled
    perplexity: float | None  # of the sampled tokens; None without any
    truncated: bool
    infra_failed: bool
    hops: int | None
    type: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values; `from_dict` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Prediction:
        """The prediction that `to_dict` wrote, also after a passage through JSON."""
        return Prediction(**{**values, "golden_answers": tuple(values["golden_answers"])})


def predict(question: Question, trajectory: Trajectory | None) -> Prediction:
    """The prediction of a greedy rollout; `trajectory` None, or one that is `infra_failed`: the environment failed."""
    asked: dict[str, Any] = {
        "id": question.id,
        "question": question.text,
        "golden_answers": question.golden_answers,
        "hops": _hops(question),
        "type": question.metadata.get("type"),
    }
    if trajectory is None or trajectory.infra_failed:
        scores = ("answer", "f1", "em", "cover_em", "format", "searches", "tokens", "perplexity")
        nothing: dict[str, Any] = dict.fromkeys(scores)
        return Prediction(**asked, **nothing, truncated=False, infra_failed=True)
    logprobs_N = np.concatenate([np.empty(0, np.float32), *(turn.logprobs for turn in trajectory.turns)])
    return Prediction(
        **asked,
        answer=trajectory.answer,
        f1=trajectory.answer_reward,
        em=best_over_golden(trajectory.answer, question.golden_answers, exact_match, question.tokens),
        cover_em=best_over_golden(trajectory.answer, question.golden_answers, cover_em, question.tokens),
        format=trajectory.format_reward,
        searches=sum(turn.kind is TurnKind.SEARCH for turn in trajectory.turns),
        tokens=trajectory.num_actions,
        perplexity=perplexity(logprobs_N),
        truncated=trajectory.truncated,
        infra_failed=False,
    )


@contextmanager
def prediction_writer(path: Path) -> Iterator[Callable[[Prediction], None]]:
    """Appends predictions, a line each, at once on disk. One process at a time: its folder is locked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(path.parent, "wait for it, or give another --out")
    try:
        with path.open("a", encoding="utf-8") as file:
            _drop_torn_line(path)

            def append(prediction: Prediction) -> None:
                file.write(json_line(prediction.to_dict()))
                file.flush()

            yield append
    finally:
        lock.close()


def read_predictions(path: Path) -> dict[str, Prediction]:
    """The predictions of a file by question id, {} if it is missing; of one id the last line counts.

    A last line without its line end was torn by a crash and is left out; any other that cannot be read is a DataError.
    """
    if not path.exists():
        return {}
    found = {}
    for number, line in enumerate(whole_lines(path.read_bytes())[0], start=1):
        try:
            prediction = Prediction.from_dict(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}",
                f"no prediction of ours ({error})",
                "the fields of docs/evaluation.md",
                "Delete the line, and its question is asked again.",
            ) from None
        found[prediction.id] = prediction
    return found


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """The whole file anew, in one move: a reader never meets half of it."""
    write_text(path, "".join(json_line(prediction.to_dict()) for prediction in predictions))


def _drop_torn_line(path: Path) -> None:
    """Cut the file after its last whole line: what is appended then does not run into a torn one."""
    content = path.read_bytes()
    _, torn = whole_lines(content)
    if torn:
        log.warning("%s: the last line was torn by a crash, its question is asked again", path)
        with path.open("r+b") as file:
            file.truncate(len(content) - len(torn))


def _hops(question: Question) -> int | None:
    said = question.metadata.get("hops", "")
    return int(said) if said.isdecimal() else len(question.sub_queries) or None

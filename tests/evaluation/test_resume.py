"""What evaluate.py keeps, takes up again, asks again and refuses, without engines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calibadv.cluster.rows import RolloutRow
from calibadv.config import load_config
from calibadv.data.errors import DataError
from calibadv.evaluation.asking import ROUNDS, Ask, ask_in_rounds, rows_of, waiting_questions
from calibadv.evaluation.identity import MANIFEST, check_comparable, identity, keep_identity
from calibadv.evaluation.models import EvaluatedModel
from calibadv.evaluation.plan import Plan, QuestionSet, make_plan
from calibadv.evaluation.prediction import Prediction, predict, prediction_writer, read_predictions
from calibadv.pocket import policy_path
from calibadv.tracking.run_files import PREDICTIONS
from calibadv.types import Phase, Question
from tests.build import jsonl, overrides_of, trajectory
from workflows.evaluation_options import parse_command
from workflows.shipped import RECIPES

QUESTIONS = tuple(Question(f"nq/{i}", f"who is {i}?", ("Ada",)) for i in range(4))
ASKS = [Ask("nq", question) for question in QUESTIONS]


def answer(question: Question) -> Prediction:
    return predict(question, trajectory(1.0, [2, 1]))


def make_model(*overrides: str) -> EvaluatedModel:
    return EvaluatedModel("pocket", policy_path(), load_config(RECIPES / "pocket.toml", overrides_of(*overrides)))


# ---- the file of answers


def test_answers_are_on_disk_before_the_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "m" / "nq" / PREDICTIONS
    with prediction_writer(path) as append:
        append(answer(QUESTIONS[0]))
        assert read_predictions(path) == {"nq/0": answer(QUESTIONS[0])}


def test_a_torn_last_line_is_dropped_and_asked_again(tmp_path: Path) -> None:
    path = tmp_path / PREDICTIONS
    polish = replace(answer(QUESTIONS[1]), type="łódź")
    with prediction_writer(path) as append:
        append(answer(QUESTIONS[0]))
        append(polish)
    whole = path.read_bytes()
    for torn in (20, 1, len(whole) - whole.index("ź".encode()) - 1):  # the last one: inside of a character
        path.write_bytes(whole[:-torn])
        assert list(read_predictions(path)) == ["nq/0"]
        with prediction_writer(path) as append:
            append(polish)
        assert path.read_bytes() == whole


def test_a_broken_line_in_the_middle_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / PREDICTIONS
    with prediction_writer(path) as append:
        append(answer(QUESTIONS[0]))
    path.write_text(f'{{"id": "nq/7"}}\n{path.read_text()}')
    with pytest.raises(DataError, match=r"predictions.jsonl, line 1: no prediction of ours .* Delete the line"):
        read_predictions(path)


def test_two_processes_never_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / PREDICTIONS
    with (
        prediction_writer(path),
        pytest.raises(ValueError, match=r"is being written by process .*give another --out"),
        prediction_writer(path),
    ):
        pass
    with prediction_writer(path) as append:  # the lock is given back
        append(answer(QUESTIONS[0]))


def test_only_answered_questions_are_not_asked_again(tmp_path: Path) -> None:
    model, questions = make_model(), QuestionSet("nq", tmp_path / "nq.jsonl", QUESTIONS)
    plan = Plan((model,), (questions,), tmp_path / "corpus", tmp_path)
    assert waiting_questions(plan, model) == ASKS
    with prediction_writer(plan.folder(model, questions) / PREDICTIONS) as append:
        append(answer(QUESTIONS[2]))
        append(predict(QUESTIONS[1], None))  # failed by the environment: to be asked again
    assert waiting_questions(plan, model) == [ASKS[0], ASKS[1], ASKS[3]]


# ---- rounds


class Unreliable:
    """An `AskOnce` whose search fails for a question as often as it is told to."""

    def __init__(self, failures: dict[str, int]) -> None:
        self.left = Counter(failures)
        self.asked: list[list[str]] = []

    def __call__(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Prediction]]:
        self.asked.append([ask.question.id for ask in asks])
        for ask in reversed(asks):
            failed = self.left[ask.question.id] > 0
            self.left[ask.question.id] -= failed
            yield ask, predict(ask.question, None) if failed else answer(ask.question)


def test_failed_questions_are_asked_again_until_they_are_answered() -> None:
    kept: dict[str, Prediction] = {}
    ask_once = Unreliable({"nq/1": 1, "nq/3": ROUNDS - 1})
    failed = ask_in_rounds(ASKS, ask_once, lambda ask, prediction: kept.__setitem__(ask.question.id, prediction))
    assert failed == 0
    assert sorted(ask_once.asked[1]) == ["nq/1", "nq/3"]
    assert ask_once.asked[2:] == [["nq/3"]]
    assert kept == {question.id: answer(question) for question in QUESTIONS}


def test_a_question_that_always_fails_is_reported_once_and_never_scored() -> None:
    kept: list[Prediction] = []
    ask_once = Unreliable({"nq/2": 100})
    assert ask_in_rounds(ASKS, ask_once, lambda _, prediction: kept.append(prediction)) == 1
    assert len(ask_once.asked) == ROUNDS
    assert sorted(p.id for p in kept) == [question.id for question in QUESTIONS]
    assert [(p.id, p.f1) for p in kept if p.infra_failed] == [("nq/2", None)]


def test_every_question_is_a_row_of_version_0_also_those_that_fill_no_batch() -> None:
    rows = rows_of(ASKS)
    assert rows == [RolloutRow(Phase.EVAL, 0, i, question, version=0) for i, question in enumerate(QUESTIONS)]


# ---- what answers depend on


def of_model(
    model: EvaluatedModel, digest: str = "m", corpus: str = "c", questions: Sequence[Question] = QUESTIONS
) -> Any:
    return identity(model, digest, questions, corpus)


def test_the_same_evaluation_is_taken_up_again_on_other_machinery(tmp_path: Path) -> None:
    keep_identity(tmp_path, of_model(make_model()), {"model": "here"})
    faster = make_model(
        "--rollout.engines", "7", "--rollout.max_concurrent", "8", "--search.replicas", "2", "--run.seed", "5"
    )
    before = (tmp_path / "manifest.json").read_text()
    keep_identity(tmp_path, of_model(faster), {"model": "there"})
    assert (tmp_path / "manifest.json").read_text() == before


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (of_model(make_model(), digest="n"), "model.files was 'm', now 'n'"),
        (of_model(make_model(), corpus="d"), "corpus.content was 'c', now 'd'"),
        (of_model(make_model(), questions=QUESTIONS[:3]), "set.questions was 4, now 3"),
        (of_model(make_model("--rollout.max_turns", "2")), "dialogue.max_turns was 4, now 2"),
        (of_model(make_model("--method.name", "grpo")), "dialogue.prefill was '<think>', now ''"),
        (of_model(make_model("--search.top_k", "5")), "search.top_k was 3, now 5"),
        (of_model(make_model("--rollout.engine", "torch")), "engine.name was 'vllm', now 'torch'"),
    ],
)
def test_another_evaluation_in_the_same_folder_is_refused_with_what_differs(
    tmp_path: Path, other: Any, said: str
) -> None:
    keep_identity(tmp_path, of_model(make_model()), {})
    with pytest.raises(ValueError, match=r"holds another evaluation: .* Give another --out") as refusal:
        keep_identity(tmp_path, other, {})
    assert said in str(refusal.value)


def test_a_question_that_changed_is_another_set(tmp_path: Path) -> None:
    keep_identity(tmp_path, of_model(make_model()), {})
    changed = [replace(QUESTIONS[0], golden_answers=("Ada", "A. Lovelace")), *QUESTIONS[1:]]
    with pytest.raises(ValueError, match=r"set\.content was"):
        keep_identity(tmp_path, of_model(make_model(), questions=changed), {})


def test_answers_without_a_manifest_are_refused(tmp_path: Path) -> None:
    (tmp_path / PREDICTIONS).touch()
    with pytest.raises(ValueError, match="holds answers but no manifest"):
        keep_identity(tmp_path, of_model(make_model()), {})


@pytest.mark.parametrize("content", ["{", "1" * 5000, "[" * 100_000], ids=["torn", "a long number", "nested lists"])
def test_a_manifest_that_no_reader_can_hold_is_refused_by_its_path(tmp_path: Path, content: str) -> None:
    keep_identity(tmp_path, of_model(make_model()), {})
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=rf"{MANIFEST} cannot be read .* give another --out"):
        keep_identity(tmp_path, of_model(make_model()), {})


def test_models_of_one_table_share_corpus_search_and_the_sets_of_one_name(tmp_path: Path) -> None:
    keep_identity(tmp_path / "first" / "nq", of_model(make_model()), {})
    other = make_model("--rollout.max_turns", "1")  # models may well be asked in different ways
    check_comparable(tmp_path, of_model(other, digest="n"), "nq")
    check_comparable(tmp_path, of_model(other, questions=QUESTIONS[:1]), "musique")
    for wanted, said in (
        (of_model(other, corpus="d"), r"corpus\.content"),
        (of_model(make_model("--search.retriever", "bm25")), r"search\.retriever was 'dense', now 'bm25'"),
        (of_model(other, questions=QUESTIONS[:1]), r"set\.questions"),
    ):
        with pytest.raises(ValueError, match=f"cannot share a table with set 'nq': .*{said}"):
            check_comparable(tmp_path, wanted, "nq")


# ---- the plan: all checks before anything starts


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    rows = [{"id": str(i), "question": f"who is {i}?", "golden_answers": ["Ada"]} for i in range(3)]
    jsonl(tmp_path / "nq.jsonl", *rows)
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"id": "d", "title": "Ada", "text": "A poet's daughter."}) + "\n")
    files = ["--set", f"nq={tmp_path / 'nq.jsonl'}", "--corpus", str(tmp_path / "corpus.jsonl")]
    return ["pocket", *files, "--run.folder", str(tmp_path / "runs"), "--run.cache", str(tmp_path / "cache")]


def test_a_plan_asks_every_question_into_a_folder_a_model_and_set(arguments: list[str], tmp_path: Path) -> None:
    plan = make_plan(parse_command(arguments))
    (model,), (questions,) = plan.models, plan.sets
    assert [question.id for question in questions.questions] == ["nq/0", "nq/1", "nq/2"]
    folder = plan.folder(model, questions)
    assert folder == tmp_path / "runs" / "evaluation" / "pocket" / "nq"
    about = json.loads((folder / "manifest.json").read_text())["about"]
    assert (about["model"], about["method"]) == (str(policy_path()), "calibadv")
    assert make_plan(parse_command(arguments)) == plan


def test_a_corpus_that_changed_is_refused(arguments: list[str], tmp_path: Path) -> None:
    make_plan(parse_command(arguments))
    with (tmp_path / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"id": "e", "title": "Bea", "text": "Another."}) + "\n")
    with pytest.raises(ValueError, match=r"corpus\.content was"):
        make_plan(parse_command(arguments))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "gone=nowhere.jsonl"], "--set gone: there is no file"),
        (["--corpus", "nowhere.jsonl"], "no corpus at"),
        (["--rollout.max_prompt_tokens", "3"], "the budget is 3: raise --rollout.max_prompt_tokens"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_and_leaves_no_folder(
    arguments: list[str], tmp_path: Path, more: list[str], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make_plan(parse_command([*arguments, *more]))
    assert not (tmp_path / "runs" / "evaluation").exists()

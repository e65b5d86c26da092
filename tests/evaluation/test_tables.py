"""The tables of a folder of evaluations, from answers that the tests write themselves."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from calibadv.evaluation.prediction import Prediction, predict, read_predictions, write_predictions
from calibadv.evaluation.results import finish_set, read_results
from calibadv.evaluation.tables import write_tables
from calibadv.tracking.run_files import PREDICTIONS
from calibadv.types import Question
from tests.build import trajectory


def answers(f1s: dict[str, float | None], hops: int | None = None, kind: str | None = None) -> list[Prediction]:
    """A prediction a question; None: the environment failed."""
    metadata = {key: str(value) for key, value in (("hops", hops), ("type", kind)) if value is not None}
    return [
        predict(Question(name, "who?", ("Ada",), metadata=metadata), None if f1 is None else trajectory(f1, [2, 1]))
        for name, f1 in f1s.items()
    ]


def write_set(out: Path, model: str, set_name: str, predictions: list[Prediction]) -> None:
    folder = out / model / set_name
    folder.mkdir(parents=True)
    write_predictions(folder / PREDICTIONS, predictions)
    finish_set(folder, [prediction.id for prediction in predictions])


def rows(markdown: str, title: str) -> list[list[str]]:
    """The cells of the table under a heading, its head first."""
    table = markdown.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in (table[0], *table[2:])]


def filled(out: Path) -> str:
    write_set(out, "grpo", "nq", answers({"a": 1.0, "b": 0.0}))
    write_set(out, "grpo", "musique", answers({"a": 0.5}, hops=2, kind="2hop"))
    write_set(out, "calibadv", "nq", answers({"a": 1.0, "b": 1.0}))
    write_set(out, "calibadv", "musique", answers({"a": 0.75, "c": None}, hops=3))
    write_set(out, "base", "nq", answers({"a": 0.0, "b": 0.0}))
    write_tables(read_results(out, ["grpo"]), out, ["nq", "musique"])
    return (out / "table.md").read_text()


def test_a_row_a_model_a_column_a_benchmark_and_their_mean(tmp_path: Path) -> None:
    head, *models = rows(filled(tmp_path), "F1")
    assert head == ["model", "nq", "musique", "mean"]
    assert models == [
        ["grpo", "50.00", "50.00", "50.00"],  # the models of this call first
        ["base", "0.00", "–", "–"],  # no mean of other benchmarks than its neighbours'
        ["calibadv", "100.00", "75.00", "87.50"],
    ]


def test_every_figure_and_every_count_has_its_column(tmp_path: Path) -> None:
    head, *lines = rows(filled(tmp_path), "All figures")
    figures = {(line[0], line[1]): dict(zip(head, line, strict=True)) for line in lines}
    assert len(figures) == 5
    lost = figures["calibadv", "musique"]
    assert (lost["questions"], lost["infra-failed"], lost["truncated"]) == ("2", "1", "0")
    assert (lost["F1"], lost["EM"], lost["format"], lost["searches"], lost["tokens"]) == (
        "75.00",
        "100.00",
        "100.00",
        "1.00",
        "3.0",
    )


def test_intervals_have_a_table_of_the_same_shape(tmp_path: Path) -> None:
    head, grpo, base, _ = rows(filled(tmp_path), "95 % intervals of F1")
    assert head == ["model", "nq", "musique", "mean"]
    assert grpo == ["grpo", "0.0 to 100.0", "50.0 to 50.0", "25.0 to 75.0"]  # the mean's: (nq + a constant 50) / 2
    assert base == ["base", "0.0 to 0.0", "–", "–"]


def test_hops_and_types_are_given_where_the_set_says_them(tmp_path: Path) -> None:
    text = filled(tmp_path)
    assert rows(text, "F1 by hops") == [
        ["model", "benchmark", "2-hop", "3-hop"],
        ["grpo", "musique", "50.00 (1)", "–"],
        ["calibadv", "musique", "–", "75.00 (1)"],
    ]
    assert rows(text, "F1 by type") == [["model", "benchmark", "2hop"], ["grpo", "musique", "50.00 (1)"]]


def test_sets_without_hops_and_types_have_no_such_tables(tmp_path: Path) -> None:
    write_set(tmp_path, "m", "nq", answers({"a": 1.0}))
    write_tables(read_results(tmp_path), tmp_path)
    assert "by hops" not in (tmp_path / "table.md").read_text()


def test_the_csv_has_a_row_a_model_with_plain_numbers(tmp_path: Path) -> None:
    filled(tmp_path)
    with (tmp_path / "table.csv").open(newline="") as file:
        table = {row["model"]: row for row in csv.DictReader(file)}
    assert list(table) == ["grpo", "base", "calibadv"]
    assert [float(table["calibadv"][name]) for name in ("nq", "musique", "mean")] == [1.0, 0.75, 0.875]
    assert (table["base"]["musique"], table["base"]["mean"], table["base"]["musique/em"]) == ("", "", "")
    assert float(table["grpo"]["mean/f1_low"]) == 0.25
    assert float(table["calibadv"]["musique/infra_failed"]) == 1


def test_a_finished_set_is_in_the_order_of_its_questions_with_the_last_answer_of_each(tmp_path: Path) -> None:
    first, second = answers({"a": 0.25, "b": 0.5})
    again = replace(first, f1=1.0)
    write_predictions(tmp_path / PREDICTIONS, [second, predict(Question("a", "who?", ("Ada",)), None), again])
    assert finish_set(tmp_path, ["a", "b"]).f1 is not None
    assert list(read_predictions(tmp_path / PREDICTIONS).values()) == [again, second]
    assert len((tmp_path / PREDICTIONS).read_text().splitlines()) == 2

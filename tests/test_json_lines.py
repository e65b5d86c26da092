"""Records whose text holds any line end of Unicode come back whole, everywhere that JSON lines are read."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from calibadv.evaluation.prediction import predict, prediction_writer, read_predictions
from calibadv.json_lines import Tail, json_line, read_json_lines, whole_lines
from calibadv.tracking.journal import Journal
from calibadv.tracking.run_folder import RunFolder
from calibadv.types import Question
from tests.test_layers import SOURCES

ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # what str.splitlines ends a line at, beside \n
ODD = f"a{'b'.join(ENDS)}c\nd\0e"


def test_lines_end_at_a_line_feed_alone() -> None:
    first, second = {"text": ODD}, {"text": "x"}
    content = (json_line(first) + json_line(second)).encode() + b'{"te'
    lines, torn = whole_lines(content)
    assert [json.loads(line) for line in lines] == [first, second]
    assert torn == b'{"te'
    assert whole_lines(b"") == ([], b"")
    assert whole_lines(b"a\r\nb\n") == ([b"a\r", b"b"], b"")


def test_a_line_with_more_nesting_or_digits_than_python_takes_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "r.jsonl").write_text(f'{"[" * 100_000}\n{"1" * 5000}\n{{"step": 3}}\n')
    assert read_json_lines(tmp_path / "r.jsonl") == [{"step": 3}]
    assert len(caplog.records) == 2


def test_half_a_surrogate_pair_is_written_and_read_back() -> None:
    assert json.loads(json_line({"text": "\ud800é"}).encode()) == {"text": "\ud800é"}
    assert json_line({"text": "é\u2028"}) == '{"text": "é\u2028"}\n'  # all else as it is


def test_a_journal_reads_back_as_many_records_as_it_wrote(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = [{"step": 1, "q": ODD}, {"step": 2, "q": "\u2028"}, {"step": 3, "q": "d"}]
    Journal(tmp_path / "r.jsonl").append(values)
    assert read_json_lines(tmp_path / "r.jsonl") == values
    assert caplog.text == ""
    with (tmp_path / "r.jsonl").open("ab") as file:
        file.write('{"step": 4, "q": "\u2028'.encode())
    assert read_json_lines(tmp_path / "r.jsonl") == values
    assert "line 4 is not JSON (cut by a crash?), skipped" in caplog.text


def test_a_run_folder_keeps_predictions_whole(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as folder:
        folder.write_predictions([{"id": "1", "question": ODD}, {"id": "2", "question": "x"}])
        assert [line["id"] for line in read_json_lines(folder.predictions)] == ["1", "2"]


def test_predictions_of_an_evaluation_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    predictions = [predict(Question(id, ODD, ("a",)), None) for id in ("1", "2")]
    with prediction_writer(path) as append:
        for prediction in predictions:
            append(prediction)
    assert list(read_predictions(path).values()) == predictions


def test_a_tail_takes_whole_lines_and_waits_for_the_rest(tmp_path: Path) -> None:
    tail, path = Tail(tmp_path / "m.jsonl"), tmp_path / "m.jsonl"

    def added() -> list[dict[str, Any]]:
        values = []
        for value, end in tail.added():
            values.append(value)
            tail.offset = end
        return values

    assert added() == []
    path.write_bytes(json_line({"step": 1, "note": ODD}).encode() + b'{"step"')
    assert added() == [{"step": 1, "note": ODD}]
    assert added() == []
    with path.open("ab") as file:
        file.write(b": 2}\n")
    assert added() == [{"step": 2}]
    path.write_text(json_line({"step": 1}))  # shorter: begun anew
    assert added() == [{"step": 1}]


def test_a_journal_ends_the_line_that_a_killed_process_tore(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"step": 1}\n{"st')
    Journal(tmp_path / "r.jsonl").append([{"step": 2}])
    assert read_json_lines(tmp_path / "r.jsonl") == [{"step": 1}, {"step": 2}]


def test_no_module_that_reads_json_splits_text_at_any_line_end() -> None:
    def calls(path: Path) -> set[str]:
        tree = ast.parse(path.read_text("utf-8"))
        called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        return {func.attr for func in called if isinstance(func, ast.Attribute)}

    found = {module: calls(path) for module, path in SOURCES.items()}
    assert [module for module, called in found.items() if "loads" in called and "splitlines" in called] == []
    assert sum("loads" in called for called in found.values()) > 20  # the rule has something to hold

"""`prepare_data.py`: questions, the paper's sets and corpora by one command each, and what it says of bad input."""

from __future__ import annotations

import gzip
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RemoteEntryNotFoundError

from benchmarks import corpus_store as store_benchmark
from calibadv.data.corpus import load_corpus
from calibadv.data.corpus_store import CorpusStore
from calibadv.data.errors import DataError
from calibadv.data.preparation.paper import TESTS, TRAIN, PaperCount, PaperSet, difference
from calibadv.data.preparation.sources import hub_file, question_file
from calibadv.data.questions import load_questions
from tests.build import jsonl
from workflows import prepare_data
from workflows.command import run_command


def question(number: int, text: str) -> dict[str, Any]:
    return {"id": f"n{number}", "question": text, "golden_answers": ["A"]}


def passages(path: Path, *rows: tuple[str, str]) -> Path:
    path.write_bytes(
        gzip.compress("".join(json.dumps({"id": i, "contents": contents}) + "\n" for i, contents in rows).encode())
    )
    return path


def run(*arguments: str | Path) -> int:
    return prepare_data.main([str(argument) for argument in arguments])


def test_a_question_file_becomes_parquet_that_trains(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "nq" / "test.jsonl", question(0, "who?"), question(1, "where?"))
    assert run("questions", source, tmp_path / "out" / "nq.parquet") == 0
    loaded = load_questions(tmp_path / "out" / "nq.parquet")
    assert [q.id for q in loaded] == ["nq/n0", "nq/n1"]  # of the folder: the file is called after its split
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["nq.parquet"]
    assert run("questions", source, tmp_path / "mine.parquet", "--name", "mine") == 0
    assert load_questions(tmp_path / "mine.parquet")[0].id == "mine/n0"


def test_bad_rows_stop_it_or_are_counted_and_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = jsonl(tmp_path / "q.jsonl", question(0, "who?"), question(1, " "), [1], question(2, "when?"))
    out = tmp_path / "q.parquet"
    with pytest.raises(DataError, match=r"q.jsonl, line 2: 'question' is blank"):
        run("questions", source, out)
    assert not out.exists()
    with caplog.at_level(logging.INFO):
        assert run("questions", source, out, "--skip-bad") == 0
    assert [q.id for q in load_questions(out)] == ["q/n0", "q/n2"]
    listed = (tmp_path / "q.parquet.skipped.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in listed] == [f"{source}, line 2", f"{source}, line 3"]
    assert "skipped 2 bad rows" in caplog.text
    jsonl(source, question(0, "who?"))
    run("questions", source, out, "--skip-bad")
    assert not (tmp_path / "q.parquet.skipped.txt").exists()  # an old list would speak of an old file


def test_overlap_with_a_test_set_is_reported_and_dropped_when_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = jsonl(tmp_path / "train.jsonl", question(0, "Who sang it?"), question(1, "Where?"))
    test = jsonl(tmp_path / "quiz.jsonl", question(7, "who sang it"))
    with caplog.at_level(logging.WARNING):
        run("questions", train, tmp_path / "a.parquet", "--name", "t", "--against", test)
    assert "1 of 2 questions are also in" in caplog.text
    assert (tmp_path / "a.parquet.overlap.tsv").read_text() == "t/n0\tquiz/n7\tWho sang it?\n"
    assert len(load_questions(tmp_path / "a.parquet")) == 2
    run("questions", train, tmp_path / "b.parquet", "--name", "t", "--against", test, "--drop-overlap")
    assert [q.id for q in load_questions(tmp_path / "b.parquet")] == ["t/n1"]


def test_held_out_questions_are_chosen_by_id_whatever_their_order(tmp_path: Path) -> None:
    rows = [question(number, f"What is {number}?") for number in range(12)]
    chosen: list[set[str]] = []
    for name, order, seed in (("a", rows, 0), ("b", rows[::-1], 0), ("c", rows, 1)):
        source, out = jsonl(tmp_path / f"{name}.jsonl", *order), tmp_path / f"{name}.parquet"
        assert run("questions", source, out, "--name", "q", "--hold-out", "4", "--hold-out-seed", str(seed)) == 0
        kept, held_out = load_questions(out), load_questions(tmp_path / f"{name}-held-out.parquet")
        assert (len(kept), len(held_out)) == (8, 4)
        assert {q.id for q in kept + held_out} == {f"q/n{number}" for number in range(12)}
        in_file = [q["id"] for q in order]
        assert [q.id for q in kept] == sorted((q.id for q in kept), key=lambda i: in_file.index(i[2:]))
        chosen.append({q.id for q in held_out})
    assert chosen[0] == chosen[1] != chosen[2]


def test_holding_all_questions_out_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "q.jsonl", question(0, "who?"), question(1, "where?"))
    for number in ("2", "-1"):
        with pytest.raises(ValueError, match=rf"--hold-out {number} of 2 questions; expected at least 0 and at most 1"):
            run("questions", source, tmp_path / "q.parquet", "--hold-out", number)
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


def test_a_name_is_fetched_from_the_hub_and_a_path_is_not(tmp_path: Path) -> None:
    asked: list[Any] = []

    def download(*arguments: str, **named: str) -> str:
        asked.append((arguments, named))
        return str(tmp_path / "there.jsonl")

    assert question_file("hotpotqa", "dev", download) == (tmp_path / "there.jsonl", "hotpotqa")
    assert [arguments for arguments, _ in asked] == [("RUC-NLPIR/FlashRAG_datasets", "hotpotqa/dev.jsonl")]
    assert asked[0][1]["repo_type"] == "dataset"
    for path in ("hotpotqa.jsonl", "data/hotpotqa", str(tmp_path)):
        with pytest.raises(DataError, match=r"no such file|it is a folder"):
            question_file(path, "dev", download)
    assert len(asked) == 1


RESPONSE = httpx.Response(500, request=httpx.Request("GET", "https://example.org"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LocalEntryNotFoundError("offline"), "the hub cannot be reached; expected the file or the hub. Fetch it where"),
        (RemoteEntryNotFoundError("404", response=RESPONSE), "the hub has no such file; .* See --split"),
        (HfHubHTTPError("500 Server Error", response=RESPONSE), r"could not be fetched \(HfHubHTTPError: 500 Server"),
        (ConnectionError("no route\nto host"), r"could not be fetched \(ConnectionError: no route\)"),
    ],
)
def test_what_the_hub_refuses_is_said_with_a_remedy(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def download(*_: str, **__: str) -> str:
        raise error

    with pytest.raises(DataError, match=rf"FlashRAG_datasets: nq/test.jsonl: .*{said}"):
        hub_file("nq", "test", download)


def test_offline_mode_is_named_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def download(*_: str, **__: str) -> str:
        raise LocalEntryNotFoundError("offline")

    with pytest.raises(DataError, match="HF_HUB_OFFLINE=1 forbids to fetch it"):
        hub_file("nq", "test", download)


def test_the_papers_counts_are_its_counts() -> None:
    assert {s.dataset: s.questions for s in TRAIN} == {"hotpotqa": 90_447, "2wikimultihopqa": 15_000}
    assert {s.dataset: s.questions for s in TESTS} == {
        "nq": 3_610,
        "triviaqa": 11_313,
        "popqa": 14_267,
        "hotpotqa": 7_405,
        "2wikimultihopqa": 12_576,
        "musique": 2_417,
        "bamboogle": 125,
    }


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (3_610, None),
        (3_609, "nq test has 3,609 questions, the paper 3,610: 1 fewer"),
        (5_000, "nq test has 5,000 questions, the paper 3,610: 1,390 more"),
    ],
)
def test_a_difference_is_said_in_numbers(found: int, said: str | None) -> None:
    assert difference(PaperCount(PaperSet("nq", "test", 3_610), found, 0)) == said


def test_the_papers_sets_are_one_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    copy = tmp_path / "flashrag"
    for number, wanted in enumerate((*TRAIN, *TESTS)):
        rows = [question(0, f"Question {number}?"), question(1, "Shared?" if wanted.dataset != "nq" else "Own?")]
        jsonl(copy / wanted.dataset / f"{wanted.split}.jsonl", *rows)
    plain = copy / "popqa" / "test.jsonl"
    plain.with_name("test.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    out = tmp_path / "out"
    with caplog.at_level(logging.WARNING):
        assert run("paper", out, "--local", copy, "--drop-overlap") == 0
    train, test = load_questions(out / "train.parquet"), load_questions(out / "test.parquet")
    assert [q.id for q in train] == ["hotpotqa/n0", "2wikimultihopqa/n0"]  # both sets ask what a test set asks
    assert len(test) == len({q.id for q in test}) == 14
    assert len(list((out / "test").iterdir())) == 7
    assert load_questions(out / "test" / "popqa.parquet")[0].id == "popqa/n0"
    assert "hotpotqa train has 2 questions, the paper 90,447: 90,445 fewer" in caplog.text
    assert "2 of 4 questions are also in" in caplog.text


def test_a_missing_set_of_the_paper_stops_it_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hotpotqa/train.jsonl: no such file"):
        run("paper", tmp_path / "out", "--local", tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_packed_wiki_18_becomes_a_store_that_serves(tmp_path: Path) -> None:
    source = passages(tmp_path / "wiki-18.jsonl.gz", ("0", '"A"\nOne.'), ("1", '"B"\nTwo.'))
    assert run("corpus", source, tmp_path / "store") == 0
    store = load_corpus(tmp_path / "store")
    assert isinstance(store, CorpusStore)
    assert list(store) == load_corpus(source)
    assert store.by_id("1").title == "B"


def test_a_folder_of_documents_becomes_a_corpus_file_that_becomes_a_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "leave.md").write_text(f"# Leave\n{'word ' * 30}", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        assert run("corpus", tmp_path / "documents", tmp_path / "c.jsonl", "--words", "20", "--overlap", "5") == 0
    assert f"{tmp_path}/c.jsonl: 2 passages, 0 repeated ones left out" in caplog.text
    assert run("corpus", tmp_path / "c.jsonl", tmp_path / "store") == 0
    assert [document.id for document in load_corpus(tmp_path / "store")] == [
        "leave.md#line=2",
        "leave.md#line=2&part=2",
    ]


def test_a_duplicate_id_of_a_corpus_is_named_by_its_lines_or_skipped(tmp_path: Path) -> None:
    source = passages(tmp_path / "c.jsonl.gz", ("0", '"A"\nOne.'), ("1", '"B"\nTwo.'), ("0", '"C"\nThree.'))
    with pytest.raises(DataError, match=r"c.jsonl.gz, line 3: id '0' was already used in .*c.jsonl.gz, line 1; "):
        run("corpus", source, tmp_path / "store")
    assert run("corpus", source, tmp_path / "store", "--skip-bad") == 0
    assert [document.title for document in CorpusStore(tmp_path / "store")] == ["A", "B"]
    assert "store, passage 3: id '0'" in (tmp_path / "store.skipped.txt").read_text()


def test_an_empty_passage_is_named_or_skipped(tmp_path: Path) -> None:
    source = passages(tmp_path / "c.jsonl.gz", ("0", '"A"\n '), ("1", '"B"\nTwo.'))
    with pytest.raises(DataError, match=r"line 1: 'contents' is '\"A\"'; expected"):
        run("corpus", source, tmp_path / "store")
    run("corpus", source, tmp_path / "store", "--skip-bad")
    assert len(CorpusStore(tmp_path / "store")) == 1


def test_the_benchmark_prints_a_row_of_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row_of = partial(store_benchmark.benchmark_row, look_ups=20, process_of=lambda: ThreadPoolExecutor(1))
    assert store_benchmark.main(["--passages", "300", "--folder", str(tmp_path / "store")], row_of=row_of) == 0
    header, rule, row = capsys.readouterr().out.splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    assert row.startswith("| 300 |")
    store = CorpusStore(tmp_path / "store")
    assert len(store) == 300
    assert store.by_id("passage-299") == store[299]


def test_bad_input_ends_the_command_with_words_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["prepare_data.py", "corpus", str(tmp_path / "none.jsonl"), str(tmp_path / "s")])
    assert run_command(prepare_data.main) == 2
    assert "none.jsonl: no such file" in capsys.readouterr().err


def test_thumbs_become_questions_that_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = {"time": 1.0, "comment": "", "model": "m", "documents": []}
    source = jsonl(
        tmp_path / "feedback.jsonl",
        {"id": "r1", "rating": "up", "question": "Who?", "answer": "Ann", **said},
        {"id": "r2", "rating": "down", "question": "When?", "answer": "1999", **said},
    )
    with caplog.at_level(logging.INFO):
        assert run("from-feedback", source, tmp_path / "used.parquet", "--name", "use") == 0
    (asked,) = load_questions(tmp_path / "used.parquet")
    assert (asked.text, asked.golden_answers, asked.id.partition("/")[0]) == ("Who?", ("Ann",), "use")
    assert "2 rows: 1 read, 0 refused, 1 left out (answers that nobody accepted)" in caplog.text

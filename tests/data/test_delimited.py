"""A quote that is never closed costs its own line: no row vanishes inside the cell of another."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.data.corpus import load_corpus
from calibadv.data.delimited import delimited_rows
from calibadv.data.errors import DataError
from calibadv.data.questions import load_questions
from calibadv.data.records import iter_records
from calibadv.data.tally import Tally


def read(path: Path) -> tuple[list[str], list[str], Tally]:
    """(ids that are read, what is said of the rest, counts) of a corpus of id, text and title."""
    told: list[str] = []
    tally = Tally()
    kept = load_corpus(path, lambda error: told.append(str(error)), tally)
    assert tally.rows == tally.read + tally.refused + tally.left_out.total()
    return [document.id for document in kept], told, tally


def table(path: Path, *rows: str, delimiter: str = "\t", columns: str = "id text title") -> Path:
    lines = [delimiter.join(columns.split()), *(row.replace("|", delimiter) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def rows(number: int, **odd: str) -> list[str]:
    return [odd.get(f"_{n}", f"{n}|Text {n}.|Title {n}") for n in range(1, number + 1)]


@pytest.mark.parametrize("name", ["c.tsv", "c.csv"])
@pytest.mark.parametrize(
    ("odd", "refused"),
    [
        ({"_3": '3|"Open.|Title 3', "_9": '9|Closing"|Title 9'}, [4]),
        ({"_3": '3|"Open.|Title 3', "_4": '4|Closing"|Title 4'}, [4, 5]),  # the next line: which of the two is odd?
        ({"_3": '3|"Open.|Title 3'}, [4]),  # until the file ends
        ({"_12": '12|"Open.|Title 12'}, [13]),
        ({"_3": '3|Text|"Title', "_9": '9|Text|Title"'}, [4]),
        ({"_3": '3|"Open|T', "_6": '6|"Open|T', "_9": '9|Closing"|T'}, [4, 7]),
        ({"_3": '3|"Open|T', "_6": '6|"all quoted"|T'}, [4]),
        ({"_3": '"3|Text|T'}, [4]),
    ],
)
def test_an_open_quote_costs_its_own_line(tmp_path: Path, name: str, odd: dict[str, str], refused: list[int]) -> None:
    path = table(tmp_path / name, *rows(12, **odd), delimiter="\t" if name.endswith("tsv") else ",")
    kept, told, tally = read(path)
    assert [said.split(": ")[0] for said in told] == [f"{path}, line {line}" for line in refused]
    assert kept == [str(n) for n in range(1, 13) if n + 1 not in refused]
    assert (tally.rows, tally.refused) == (12, len(refused))
    with pytest.raises(DataError, match=rf"{name}, line {refused[0]}: .*quote.*; expected quotes at both ends"):
        load_corpus(path)


def test_an_open_quote_in_a_question_file_is_refused_by_its_line(tmp_path: Path) -> None:
    path = table(
        tmp_path / "q.csv",
        "1|Who?|Ann",
        '2|"Who said|Bea',
        "3|Where?|Vel",
        "4|When?|1990",
        '5|that"|Cid',
        "6|How?|so",
        delimiter=",",
        columns="id question answers",
    )
    with pytest.raises(DataError, match=r"q.csv, line 3: a cell begins with a quote that is not closed on its line"):
        load_questions(path)
    tally = Tally()
    assert [q.id for q in load_questions(path, on_bad=lambda _: None, tally=tally)] == [
        "q/1",
        "q/3",
        "q/4",
        "q/5",
        "q/6",
    ]
    assert str(tally) == "6 rows: 5 read, 1 refused"


@pytest.mark.parametrize(
    "text",
    [
        'id,text,title\n1,"Line one,\nline two.",A\n2,x,B\n',
        'id,title,text\n1,A,"Line one.\n\nLine, three."\n2,B,x\n',
        'id,title,text\n1,A,"Said, she: ""so"",\nand went, slowly."\n2,B,x\n',
        'title,text\n"Who, then?\nsay?",A\nB,x\n',
        'id\ttitle\ttext\n1\tA\t"Line one\nline two\nline three"\n2\tB\tx\n',
        'id,title,text\n1,A,"carriage\rreturn"\r\n2,B,x\r\n',
        '\ufeff"id","title","text"\r\n"1","A","x\r\ny"\r\n"2","B","x"\r\n',
    ],
)
def test_quoted_cells_of_several_lines_are_read_as_ever(tmp_path: Path, text: str) -> None:
    path = tmp_path / ("c.tsv" if "\t" in text else "c.csv")
    path.write_text(text, encoding="utf-8", newline="")
    with path.open(newline="", encoding="utf-8-sig") as file:
        expected = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    assert [dict(record.fields) for record in iter_records(path)] == expected
    assert len(expected) == 2


def test_an_inner_quote_costs_the_lines_of_its_cell_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('id,text,title\n1,a,A\n2,"say "so",\nand then, he\nwent.",B\n3,"c, d",C\n4,e,D\n', encoding="utf-8")
    kept, told, tally = read(path)
    assert kept == ["1", "3", "4"]
    assert [said.partition(": ")[0].rpartition(" ")[2] for said in told] == ["3", "4", "5"]
    assert (tally.rows, tally.read, tally.refused) == (6, 3, 3)


def test_a_file_without_a_readable_first_row_is_refused_whatever_is_skipped(tmp_path: Path) -> None:
    for name, text in (("a.csv", 'id,"text,title\n1,a,A\n'), ("b.csv", 'id,"te\nxt",title\n1,a,A\n')):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=rf"{name}, line 1: "):
            load_corpus(tmp_path / name, lambda _: None)


def test_line_ends_of_old_and_a_mark_before_the_first_column_are_known(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "c.csv").write_bytes(b"id,text,title\r1,a,A\r")
    with pytest.raises(DataError, match=r"c.csv, line 1: .*a carriage return stands outside quotes"):
        load_corpus(tmp_path / "c.csv")
    parquet.write_table(pa.table({"\ufeffid": ["7"], "text": ["a"], "title": ["A"]}), tmp_path / "c.parquet")
    assert load_corpus(tmp_path / "c.parquet")[0].id == "7"


def test_a_row_that_lost_a_line_to_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes('id,text,title\n1,"one\nKöln\nthree",A\n2,x,B\n'.encode("latin-1"))
    kept, told, _ = read(path)
    assert kept == ["2"]
    assert "line 3: byte 0xf6" in told[0]
    assert "line 2: a line of the row could not be read" in told[1]


def test_blank_lines_and_empty_rows_are_no_rows_and_a_nul_is_a_character(tmp_path: Path) -> None:
    path = table(tmp_path / "c.csv", "1|a\0b|A", "||", "", "2|x|B", delimiter=",")
    kept, told, tally = read(path)
    assert (kept, told, tally.rows) == (["1", "2"], [], 2)
    assert load_corpus(path)[0].text == "a\0b"


cells = st.text(alphabet='ab ,"\n\t', max_size=6)


@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=6), st.sampled_from("\t,"))
def test_what_a_writer_quotes_is_read_back_or_refused_never_changed(written: list[Any], delimiter: str) -> None:
    import io

    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerows([("id", "text", "title"), *((f"r{i}", *row[1:]) for i, row in enumerate(written))])
    lines = list(enumerate(file.getvalue().splitlines(keepends=True), start=1))
    bad: list[DataError] = []
    found = [row.cells for row in delimited_rows("f", lines, delimiter, bad.append)][1:]
    whole = [[f"r{i}", *row[1:]] for i, row in enumerate(written)]
    assert bad or found == whole
    assert all(row in whole for row in found) or bad


def test_many_open_quotes_take_no_quadratic_time() -> None:
    random.seed(0)
    lines = [(1, "id\ttext\n"), *((n, f'{n}\t"open {n}\n') for n in range(2, 20_002))]
    bad: list[DataError] = []
    assert [row.cells for row in delimited_rows("f", lines, "\t", bad.append)] == [["id", "text"]]
    assert len(bad) == 20_000

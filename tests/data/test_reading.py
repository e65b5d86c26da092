"""Records of every kind of file: streamed, packed or not, and every way in which a file can be broken."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from calibadv.data.errors import DataError
from calibadv.data.json_window import JsonWindow
from calibadv.data.records import iter_records

ROWS = [{"id": str(i), "text": f"Zürich {i}"} for i in range(5)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


class Bad(list[str]):
    """An `OnBad` that remembers."""

    def __call__(self, error: DataError) -> None:
        self.append(str(error))


def fields(path: Path, bad: Bad | None = None) -> list[Any]:
    return [dict(record.fields) for record in iter_records(path, *([bad] if bad is not None else []))]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.txt"])
@pytest.mark.parametrize("packed", [False, True])
def test_lines_are_read_under_any_name_packed_or_not(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(LINES.encode()) if packed else LINES.encode())
    assert fields(path) == ROWS


def test_a_gzip_archive_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(gzip.compress(LINES.encode()))
    assert fields(path) == ROWS


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_and_an_object_of_titles_are_read(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "rows.json"
    path.write_text("\ufeff" + json.dumps(ROWS, indent=indent), encoding="utf-8")
    assert fields(path) == ROWS
    titles = {f"T{i}": ["One.", "Two."] for i in range(100)}
    path.write_text(json.dumps(titles, indent=indent), encoding="utf-8")
    assert fields(path) == [{"title": title, "sentences": body} for title, body in titles.items()]


def test_places_count_lines_and_rows_from_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8")  # a row takes 4 lines, the bracket one
    assert [record.place for record in iter_records(path)][:2] == [f"{path}, line 2, row 1", f"{path}, line 6, row 2"]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + LINES, encoding="utf-8")
    assert next(iter_records(path)).place == f"{path}, line 2"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(json_values, max_size=5), st.integers(1, 7), st.booleans())
def test_a_window_of_any_size_reads_what_json_reads(values: list[Any], step: int, escaped: bool) -> None:
    text = " ".join(json.dumps(value, ensure_ascii=escaped) for value in values)
    source = text.encode("utf-8", "surrogatepass") if escaped else text.encode()
    at = 0

    def read(_: int) -> bytes:
        nonlocal at
        at += step
        return source[at - step : at]

    window, found = JsonWindow(read), []
    while window.next_char():
        found.append(window.value())
    assert found == values


def test_a_malformed_value_is_found_before_the_rest_is_read() -> None:
    reads = []

    def read(size: int) -> bytes:
        reads.append(size)
        return b'{"a" 1} ' + b" " * 1000

    with pytest.raises(json.JSONDecodeError, match="Expecting ':'"):
        JsonWindow(read).value()
    assert len(reads) == 1


def test_memory_does_not_grow_with_a_list(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "rows.json"
    rng = random.Random(0)
    texts = ["".join(rng.choices("abcdefgh ", k=2000)) for _ in range(50)]
    path.write_text(json.dumps([{"text": texts[i % 50]} for i in range(8000)]), encoding="utf-8")
    assert path.stat().st_size > 16_000_000
    tracemalloc.start()
    count = sum(1 for _ in iter_records(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 8000
    assert peak < 8_000_000  # the window is 1 MiB; text and its bytes are there twice while it moves


def test_csv_and_tsv_have_typed_cells_and_the_line_of_each_row(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('id,question,answer\n1,"Who, then?","[""A"", ""B""]"\n\n2,"Two\nlines?",\n', encoding="utf-8")
    first, second = list(iter_records(path))
    assert first.fields == {"id": "1", "question": "Who, then?", "answer": ["A", "B"]}
    assert second.fields == {"id": "2", "question": "Two\nlines?", "answer": None}
    assert (first.place, second.place) == (f"{path}, line 2", f"{path}, line 4")
    path = tmp_path / "q.tsv"
    path.write_text("id\tanswer\n1\t[not a list\n", encoding="utf-8")
    assert fields(path) == [{"id": "1", "answer": "[not a list"}]


def test_parquet_rows_are_counted_over_batches(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"n": list(range(3000))}), path)
    records = list(iter_records(path))
    assert [record.fields["n"] for record in records] == list(range(3000))
    assert records[2047].place == f"{path}, row 2048"


def test_one_row_that_is_not_utf8_does_not_spoil_its_batch(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    texts = pa.array([b"good", b"K\xf6ln", b"fine"]).cast(pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"text": texts}), path)
    bad = Bad()
    assert fields(path, bad) == [{"text": "good"}, {"text": "fine"}]
    assert len(bad) == 1
    assert f"{path}, row 2: a text is not UTF-8" in bad[0]


def broken(tmp_path: Path, name: str, content: bytes) -> tuple[str, list[Any], Bad]:
    """(what a strict reader says, what a lenient one keeps, what it is told)."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(iter_records(path))
    bad = Bad()
    kept = fields(path, bad)
    assert bad[0] == str(caught.value)
    assert str(path) in bad[0]
    assert "; expected " in bad[0]
    return bad[0], kept, bad


def test_a_broken_line_is_named_and_skipped(tmp_path: Path) -> None:
    said, kept, bad = broken(tmp_path, "r.jsonl", b'{"a": 1}\n{"a": \n[2]\n{"a": 3}\n')
    assert "line 2: malformed JSON" in said
    assert kept == [{"a": 1}, {"a": 3}]
    assert "line 3: found [2]; expected a JSON object" in bad[1]


@pytest.mark.parametrize(("name", "where"), [("r.jsonl", "line 2:"), ("r.json", "line 1, row 2:")])
def test_a_row_in_another_encoding_is_named_and_skipped(tmp_path: Path, name: str, where: str) -> None:
    rows = [b'{"a": 1}', '{"a": "Köln"}'.encode("latin-1"), b'{"a": 3}']
    content = b"\n".join(rows) if name.endswith("l") else b"[" + b", ".join(rows) + b"]"
    said, kept, bad = broken(tmp_path, name, content)
    assert f"{where} byte 0xf6 at offset 8 is not UTF-8; expected UTF-8 text" in said
    assert "iconv -f CP1252" in said
    assert kept == [{"a": 1}, {"a": 3}]
    assert len(bad) == 1


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.csv"])
def test_utf_16_is_recognised(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes('{"a": 1}\n'.encode("utf-16"))
    for on_bad in ([], [Bad()]):  # nothing is left of it, so that skipping does not help
        with pytest.raises(DataError, match=r"line 1: byte 0xff at offset 0 .*iconv -f UTF-16"):
            list(iter_records(path, *on_bad))


def test_what_follows_a_break_in_a_list_is_lost_and_said(tmp_path: Path) -> None:
    said, kept, bad = broken(tmp_path, "r.json", b'[{"a": 1},\n{"a": 2},\n{"a" 3},\n{"a": 4}]')
    assert "line 3, row 3: malformed JSON" in said
    assert kept == [{"a": 1}, {"a": 2}]
    assert len(bad) == 1
    said, kept, _ = broken(tmp_path, "r.json", b'[{"a": 1}] trailing')
    assert "trailing' (Extra data)" in said
    assert kept == [{"a": 1}]


def test_an_archive_that_breaks_off_keeps_what_came_before(tmp_path: Path) -> None:
    rng = random.Random(0)  # noise, so that it is long when packed
    lines = [json.dumps({"a": "".join(rng.choices("0123456789abcdef", k=400))}) for _ in range(200)]
    whole = gzip.compress("\n".join(lines).encode())
    said, kept, bad = broken(tmp_path, "r.jsonl.gz", whole[: len(whole) // 2])
    assert "unreadable archive" in said
    assert "gzip -t" in said
    assert f"line {len(kept) + 1}: " in said
    assert 0 < len(kept) < 200
    assert len(bad) == 1
    corrupt = bytearray(whole)
    corrupt[len(whole) // 2 : len(whole) // 2 + 50] = b"\xff" * 50
    path = tmp_path / "corrupt.json.gz"
    path.write_bytes(corrupt)
    with pytest.raises(DataError, match=r"corrupt.json.gz, line 1: unreadable archive"):
        list(iter_records(path))


def test_a_row_of_another_length_and_an_open_quote_are_named_and_skipped(tmp_path: Path) -> None:
    said, kept, bad = broken(tmp_path, "r.csv", b'a,b\n1,2\n1,2,3\n4,5\n6,"open\n')
    assert "line 3: the row has 3 cells, ['1', '2', '3']; expected 2" in said
    assert kept == [{"a": "1", "b": "2"}, {"a": "4", "b": "5"}]
    assert "line 5: the row cannot be read" in bad[1]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.jsonl", b"", "holds no records"),
        ("r.json", b" \n", "holds no records"),
        ("r.json", b"[]", "holds no records"),
        ("r.json", b"{}", "holds no records"),
        ("r.csv", b"a,b\n", "holds no records"),
        ("r.csv", b"a,a\n1,2\n", "line 1: the columns ['a', 'a']"),
        ("r.json", b'"text"', "found '\"text\"'; expected a JSON list, a JSON object or jsonl"),
        ("r.jsonl.gz", b"<html>404</html>", "unreadable archive: it begins with b'<html>'"),
        ("r.jsonl", b"PK\x03\x04....", "it is a zip archive; expected plain text or gzip"),
        ("r.parquet", b"PAR1 not really", "unreadable"),
        ("r.jsonl", b'{"a"\n', "line 1: malformed JSON"),
    ],
)
def test_a_file_without_any_record_is_refused_even_when_bad_rows_are_skipped(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(iter_records(path, Bad()))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["none.jsonl", "none.parquet", "none.csv.gz"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: no such file"):
        list(iter_records(tmp_path / name))

"""Lists and objects that were written as text are read, or refused by their cell; plain text stays text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from calibadv.data.errors import DataError
from calibadv.data.literals import looks_like_literal, parse_literal
from calibadv.data.questions import load_questions
from calibadv.data.schema import QuestionRow, write_questions

TWO = ["baker", 'it\'s "so"']


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("['a', 'b']", ["a", "b"]),
        ("""['it\\'s', "it's"]""", ["it's", "it's"]),
        ("('a', 'b')", ["a", "b"]),
        ("('a',)", ["a"]),
        ("{'a'}", ["a"]),
        ("['a' 'b']", ["a", "b"]),  # str(numpy array): Python itself would join the two
        ("['a'\n 'b']", ["a", "b"]),
        ("array(['a', 'b'], dtype=object)", ["a", "b"]),
        ("array(['a', 'b'],\n      dtype='<U1')", ["a", "b"]),
        ("[np.str_('a'), np.str_('b')]", ["a", "b"]),
        ("[list(['a', 'b']) list(['c'])]", [["a", "b"], ["c"]]),
        ("[array(['a'], dtype=object)]", [["a"]]),
        ("{'target': array(['a', 'b'], dtype=object)}", {"target": ["a", "b"]}),
        ("[{'title': 'A', 'n': 0} {'title': 'B', 'n': 1}]", [{"title": "A", "n": 0}, {"title": "B", "n": 1}]),
        ("{'a': None, 'b': True, 'c': nan, 'd': -1.5e3}", {"a": None, "b": True, "c": None, "d": -1500.0}),
        ('"[\\"a\\", \\"b\\"]"', ["a", "b"]),  # dumped twice
        ("[]", []),
        ("[1 2 3]", [1, 2, 3]),
    ],
)  # fmt: skip
def test_what_json_python_and_numpy_write_is_read(text: str, value: Any) -> None:
    assert looks_like_literal(text)
    assert parse_literal(text) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("['a', 'b'", "it breaks off"),
        ("['a' 'b', 'c']", "commas stand between some of its values"),
        ("['a''b']", "no comma before"),
        ("['a' 'b' ... 'y' 'z']", "numpy has left its middle out"),
        ("[baker, cook]", "'baker' is neither quoted nor a number"),
        ("['a'] and more", "there is more after it"),
        ("[datetime.date(2020, 1, 1)]", "'datetime.date' is neither quoted"),
        ("{'a': 1, 'b'}", "its keys are not all texts"),
        ("[" * 100_000, "it is nested too deeply"),
        ("[__import__('os').system('true')]", "neither quoted nor a number"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        parse_literal(text)


@pytest.mark.parametrize(
    "text", ["[sic] a word", "(The) Who", "('tis) so", "a ['b']", "The [Band", "{x", "'a', 'b'", ""]
)
def test_plain_text_does_not_look_written(text: str) -> None:
    assert not looks_like_literal(text)


nested = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(nested, max_size=4) | st.dictionaries(st.text(), nested, max_size=3))
def test_json_and_pythons_repr_come_back_as_they_were(value: Any) -> None:
    assert parse_literal(json.dumps(value)) == value
    assert parse_literal(repr(value)) == value


@given(st.lists(st.text(max_size=8), min_size=1, max_size=6))
def test_a_numpy_array_of_texts_comes_back_from_str_and_repr(texts: list[str]) -> None:
    array = np.array(texts, dtype=object)
    assert parse_literal(str(array)) == texts
    assert parse_literal(repr(array)) == texts


def one(path: Path) -> Any:
    (question,) = load_questions(path)
    return question


@pytest.mark.parametrize("key", ["golden_answers", "answers", "answer"])
@pytest.mark.parametrize(
    "write", [json.dumps, repr, lambda v: str(np.array(v, dtype=object)), lambda v: repr(np.array(v, dtype=object))]
)
@pytest.mark.parametrize("name", ["q.jsonl", "q.json", "q.csv", "q.tsv", "q.parquet"])
def test_answers_written_as_text_are_the_list_in_every_format(tmp_path: Path, name: str, write: Any, key: str) -> None:
    row = {"id": "7", "question": "Who?", key: write(TWO)}
    path = tmp_path / name
    if name.endswith("parquet"):
        parquet.write_table(pa.Table.from_pylist([row]), path)
    elif name.endswith(("csv", "tsv")):
        import pandas as pd

        pd.DataFrame([row]).to_csv(path, index=False, sep="\t" if name.endswith("tsv") else ",")
    else:
        path.write_text(json.dumps([row]) if name == "q.json" else json.dumps(row) + "\n", encoding="utf-8")
    assert one(path).golden_answers == tuple(TWO)


@pytest.mark.parametrize(
    "model",
    [
        {"style": "rule", "ground_truth": {"target": str(np.array(TWO, dtype=object))}},
        {"style": "rule", "ground_truth": json.dumps({"target": TWO})},
        {"style": "rule", "ground_truth": repr({"target": np.array(TWO, dtype=object)})},
        {"style": "rule", "ground_truth": json.dumps(TWO)},
        json.dumps({"ground_truth": {"target": TWO}}),
        repr({"ground_truth": {"target": np.array(TWO, dtype=object)}, "style": "rule"}),
        {"ground_truth": {"target": [json.dumps(TWO)]}},  # a list of one text that is the list
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_verls_answers_are_read_at_whatever_level_they_became_text(tmp_path: Path, model: Any, suffix: str) -> None:
    prompt = [{"role": "user", "content": "Answer it. Question: who bakes?\n"}]
    path = tmp_path / f"q.{suffix}"
    for said in (prompt, repr(prompt), json.dumps(prompt)):
        row = {"data_source": "searchR1_nq", "prompt": said, "reward_model": model, "extra_info": "{'index': 3}"}
        if suffix == "parquet":
            parquet.write_table(pa.Table.from_pylist([row]), path)
        else:
            path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        question = one(path)
        assert (question.text, question.golden_answers) == ("who bakes?", tuple(TWO))


def test_metadata_and_gold_written_as_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    import pandas as pd

    row = {
        "id": 7,
        "question": "Who?",
        "golden_answers": ["Ann"],
        "aliases": np.array(["A.", "Anna"], dtype=object),
        "metadata": {"type": "bridge", "level": "easy"},
        "supporting_facts": [["Vel", 0], ["Oda", 1]],
        "context": [["Vel", ["Vel is a town."]], ["Oda", ["Oda.", "She lives in Vel."]]],
        "evidences": np.array([["Oda", "lives in", "Vel"]], dtype=object),
    }
    pd.DataFrame([row]).to_csv(path, index=False)
    question = one(path)
    assert question.golden_answers == ("Ann", "A.", "Anna")
    assert question.sub_queries == ("Oda lives in",)
    assert len(question.gold_doc_ids) == 2
    assert question.metadata["level"] == "easy"


def test_a_prepared_file_whose_answers_became_text_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    write_questions([QuestionRow("a/1", "who?", (repr(TWO),))], path)
    assert one(path).golden_answers == tuple(TWO)


@pytest.mark.parametrize(
    "cell", ["['Ann', 'Bea'", "[Ann, Bea]", "['a' ... 'z']", "{'a': }", "[1, 'a']", "{'text': ['Ann']}"]
)
def test_a_cell_that_looks_like_a_list_and_is_none_is_refused_by_name(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "q.csv"
    path.write_text(f'question,answers\nwho?,Ann\nwhere?,"{cell}"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"q.csv, line 3: .*answers.*; expected a list"):
        load_questions(path)


@pytest.mark.parametrize("answer", ["[sic]", "[Fe(CN)6]4-", "(The) Who", "{x", "[2, 5)"])
def test_an_answer_in_brackets_is_kept_inside_a_list_as_it_is(tmp_path: Path, answer: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question": "who?", "golden_answers": [answer]}) + "\n", encoding="utf-8")
    assert one(path).golden_answers == (answer,)

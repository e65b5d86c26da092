"""Hostile TOML and data files: read, or refused in words that name the place; never another exception."""

from __future__ import annotations

import argparse
import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from calibadv.checkpoints.manifest import Damaged, Manifest
from calibadv.checkpoints.state_files import read_state
from calibadv.config import Config, ConfigError, load_config
from calibadv.config.command_line import parse
from calibadv.config.load import every_key
from calibadv.data.corpus import load_corpus
from calibadv.data.errors import DataError
from calibadv.data.questions import load_questions
from calibadv.types import Question

many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

KEYS = st.one_of(st.sampled_from(every_key()), st.from_regex(r"[a-z_.]{1,20}", fullmatch=True), st.text(max_size=8))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.binary(max_size=4).map(repr)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner)),
    max_leaves=6,
)


def configuration(folder: Path, content: str | bytes) -> Config | None:
    """The configuration, or None where it was refused in words."""
    path = folder / "recipe.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    with suppress(ConfigError):
        return load_config(path)
    return None


@many
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200)))
@example(content=b"\xff\xfe[\x00r\x00u\x00n\x00]\x00")
@example(content="[run]\nseed = 1e400\n")
@example(content="[learner]\nlr = nan\n")
@example(content="[learner]\nlr = inf\n")
def test_any_bytes_are_a_configuration_or_refused(tmp_path: Path, content: str | bytes) -> None:
    configuration(tmp_path, content)


@many
@given(tree=st.dictionaries(st.sampled_from(list(Config.model_fields)), st.dictionaries(KEYS, VALUES, max_size=3)))
@example(tree={"method": {"params": {"preset": {"a": [{"b": 1}]}}}})
@example(tree={"run": {"cache": "a\x00b"}})
def test_any_tree_is_a_configuration_or_refused(tree: dict[str, Any]) -> None:
    with suppress(ValidationError):
        Config.model_validate(tree)


@many
@given(arguments=st.lists(st.one_of(KEYS.map(lambda key: f"--{key}"), st.text(max_size=15)), max_size=6))
@example(arguments=["--run.seed", "[" * 200])
@example(arguments=["--=", "--run=", "--.="])
def test_any_arguments_are_a_configuration_or_refused(arguments: list[str]) -> None:
    with suppress(ConfigError):
        load_config(None, parse(argparse.ArgumentParser(add_help=False), arguments)[1])


@pytest.mark.parametrize(
    "content",
    [
        "[run]\nseed = " + "[" * 5000,
        "[run]\nseed = " + "{a=" * 5000,
        "[run]\nseed = " + "1" * 5000,
        "[run]\nname = " + "1" * 5000,
    ],
    ids=["nested lists", "nested tables", "a long number", "a long number as text"],
)
def test_toml_that_no_reader_can_hold_is_refused_by_its_path(tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.toml").write_text(content)
    with pytest.raises(ConfigError, match=r"recipe\.toml is not TOML"):
        load_config(tmp_path / "recipe.toml")


def test_an_argument_that_no_reader_can_hold_is_refused_by_its_key() -> None:
    for text in ("[" * 5000, "1" * 5000):
        with pytest.raises(ConfigError, match=r"run\.seed"):
            parse(argparse.ArgumentParser(), ["--run.seed", text])


@pytest.mark.parametrize("name", ["../mine", "/etc", "a/b", "..", ".", "a\x00b", "a\nb", "\x1b[2J"])
def test_a_run_cannot_be_named_out_of_its_folder(name: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.name"):
        load_config(None, {"run.name": name})


# ---- data files --------------------------------------------------------------------------------------------------

RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.one_of(SCALARS, st.text(max_size=5)),
        "question": VALUES,
        "golden_answers": VALUES,
        "answer": VALUES,
        "title": VALUES,
        "text": VALUES,
        "contents": VALUES,
        "sentences": VALUES,
        "context": VALUES,
        "supporting_facts": VALUES,
        "metadata": VALUES,
    },
)


def loaded(path: Path) -> list[Any]:
    """What both loaders make of the file; [] where they refuse it in words."""
    found: list[Any] = []
    for load in (load_questions, load_corpus):
        with suppress(DataError):
            found += load(path)
    return found


@many
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".json", ".jsonl", ".csv", ".tsv", ".parquet", ".gz"]))
@example(content=gzip.compress(b'{"id": 1')[:-3], suffix=".gz")
@example(content=b"PAR1PAR1", suffix=".parquet")
def test_any_bytes_are_data_or_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    loaded(path)


@many
@given(records=st.lists(RECORDS, min_size=1, max_size=3), lines=st.booleans())
def test_what_is_loaded_is_text_with_answers(tmp_path: Path, records: list[Any], lines: bool) -> None:
    path = tmp_path / ("data.jsonl" if lines else "data.json")
    path.write_text("".join(json.dumps(r) + "\n" for r in records) if lines else json.dumps(records))
    for item in loaded(path):
        item.text.encode()
        assert isinstance(item.id, str)
        assert item.text.strip()
        assert not isinstance(item, Question) or all(isinstance(answer, str) for answer in item.golden_answers)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"a": ' + "[" * 100_000,
        '{"a": ' * 50_000,
        '[{"a": ' + "[" * 100_000,
        '{"id": ' + "1" * 5000 + "}",
    ],
    ids=["lists", "a list in a record", "records in records", "a list in a list", "a long number"],
)
def test_json_that_no_reader_can_hold_is_refused_by_its_place(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_text(content + "\n")
    for load in (load_questions, load_corpus):
        with pytest.raises(DataError, match="line 1"):
            load(path)


def test_a_table_cell_that_is_nested_too_deeply_is_text(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(f"title,text\nAda,{'[' * 100_000}\n")
    (document,) = load_corpus(tmp_path / "data.csv")
    assert document.text == "[" * 100_000


# ---- checkpoints -------------------------------------------------------------------------------------------------

MANIFESTS = st.fixed_dictionaries(
    {},
    optional={
        "format": st.just(1),
        "version": VALUES,
        "learners": VALUES,
        "files": st.dictionaries(st.text(max_size=8), st.one_of(VALUES, st.fixed_dictionaries({"bytes": VALUES}))),
        "snapshots": VALUES,
    },
)


@many
@given(content=st.one_of(st.binary(max_size=100), MANIFESTS.map(lambda tree: json.dumps(tree).encode())))
@example(content=b"[" * 100_000)
@example(content=b'{"format": 1, "version": ' + b"1" * 5000 + b"}")
def test_any_bytes_are_a_manifest_or_a_damaged_checkpoint(content: bytes) -> None:
    with suppress(Damaged):
        for name in Manifest.loads(content).files:
            assert not name.startswith("/")
            assert ".." not in name.split("/")


@many
@given(content=st.one_of(st.binary(max_size=100), VALUES.map(lambda tree: json.dumps(tree).encode())))
@example(content=b"[" * 100_000)
@example(content=b'{"tensors": {"t": ["a"]}, "tree": {}}')
def test_any_bytes_are_a_state_or_refused(content: bytes) -> None:
    with suppress(ValueError):
        read_state(lambda _: content)

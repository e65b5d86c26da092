"""One configuration of search for recipe, config file and flags: what it refuses, and in which words."""

from __future__ import annotations

import argparse

import pytest

from calibadv.config import load_config
from calibadv.search.reading import add_search_flags, flagged_search, parse_flags, read_search
from calibadv.search.settings import SearchConfig
from calibadv.section import Decides
from serve.builder import SearchArgs


@pytest.mark.parametrize(
    ("field", "value", "nearest"),
    [
        ("retriever", "bm52", "bm25"),
        ("retriever", "hybird", "hybrid"),
        ("reranker", "latte", "late"),
        ("late_scores", "colbart", "colbert"),
        ("tokens", "unspace", "unspaced"),
        ("index", "hsnw", "hnsw"),
        ("url_shape", "search_r2", "search_r1"),
    ],
)
def test_an_unknown_word_names_the_nearest_right_one(field: str, value: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field} = '{value}': .*\(did you mean '{nearest}'\?\)$"):
        read_search(SearchConfig, {field: value})


def test_an_unknown_encoder_names_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"encoder = 'minilmm' is not known.*Did you mean 'minilm'\?"):
        SearchConfig(encoder="minilmm")


def test_an_unknown_key_names_the_nearest_right_one_and_each_problem_has_a_line() -> None:
    with pytest.raises(ValueError, match=r"unknown key 'retreiver' \(did you mean 'retriever'\?\)") as caught:
        read_search(SearchArgs, {"corpus": "c", "retreiver": "dense", "threads": 0})
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(ValueError, match=r"^corpus = .*Field required"):
        read_search(SearchArgs, {})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("threads", 0),
            ("cache_size", -1),
            ("batch_size", 0),
            ("max_tokens", 0),
            ("ivf_probes", 0),
            ("pq_bytes", -1),
        ),
        *(("replicas", 0), ("top_k", 21), ("top_k", True), ("top_k_retrieve", 101)),
    ],
)
def test_numbers_out_of_range_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{field} = {value}"):
        read_search(SearchConfig, {field: value})


def test_a_changed_copy_is_checked() -> None:
    assert SearchConfig().but(top_k=5) == SearchConfig(top_k=5)
    with pytest.raises(ValueError, match="top_k = 21; expected at least 1 and at most top_k_retrieve = 20"):
        SearchConfig().but(top_k=21)


def test_every_field_says_what_it_means() -> None:
    assert [name for name, field in SearchArgs.model_fields.items() if not field.description] == []


def test_recipe_config_file_and_flags_give_the_same_settings() -> None:
    given = {"retriever": "hybrid", "threads": None, "ivf_probes": 8, "max_queries": 7, "http_port": 8001}
    words = {name: "none" if value is None else str(value) for name, value in given.items()}
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_search_flags(parser, http_port=8000)
    flags = [part for name, word in words.items() for part in (f"--{name.replace('_', '-')}", word)]
    expected = SearchConfig.model_validate(given)
    assert flagged_search(parser.parse_args(flags)) == expected
    assert load_config(None, {"search": words}).search == expected
    assert read_search(SearchArgs, {"corpus": "c", **given}).model_dump(exclude={"corpus", "cache_dir"}) == (
        expected.model_dump()
    )
    assert flagged_search(parser.parse_args([])) == SearchConfig(http_port=8000)


def test_the_flags_say_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_search_flags(parser, http_port=8000)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--ivf-probes VALUE Inverted lists that a query looks into. (default: 64)" in said
    assert "--reranker late|cross|none" in said
    assert "(default: 8000)" in said


def test_a_misspelt_flag_names_the_nearest_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_search_flags(parser)
    with pytest.raises(SystemExit):
        parse_flags(parser, ["--ivf-prob=3"])
    assert "unknown argument --ivf-prob=3 (did you mean '--ivf-probes'?)" in capsys.readouterr().err


def test_what_only_says_where_and_how_fast_may_change_in_a_resumed_run() -> None:
    means = set(SearchConfig.deciding(Decides.MEANS))
    assert {"replicas", "num_gpus", "threads"} <= means
    assert not {"retriever", "top_k", "ivf_probes", "max_query_chars", "url"} & means

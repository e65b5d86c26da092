"""BM25 over text without blanks between words: by characters it finds what it cannot by words."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.search.bm25 import Bm25Index
from calibadv.search.build import build_pipeline
from calibadv.search.settings import SearchConfig
from calibadv.types import Document

CORPUS = [
    Document("beijing", "北京大学", "北京大学位于北京市海淀区。"),
    Document("tokyo", "東京タワー", "東京タワーは港区にある。"),
    Document("bangkok", "กรุงเทพ", "เมืองหลวงของประเทศไทย"),
    Document("phone", "iPhone手机", "苹果公司的手机。"),
    Document("apollo", "Apollo 8", "Apollo 8 left Earth."),
]


def best(index: Bm25Index, query: str) -> str | None:
    found = index.search([query], 1)[0]
    return found[0].id if found else None


@pytest.mark.parametrize(
    ("query", "by_words", "by_characters"),
    [
        ("海淀区的大学", None, "beijing"),
        ("港区", None, "tokyo"),
        ("ประเทศ", None, "bangkok"),
        ("苹果的手机iPhone", None, "phone"),
        ("ＡＰＯＬＬＯ ８", None, "apollo"),  # full-width
        ("what was Apollo 8", "apollo", "apollo"),
    ],
)
def test_characters_find_what_words_do_not(
    tmp_path: Path, query: str, by_words: str | None, by_characters: str
) -> None:
    assert best(Bm25Index(CORPUS, tmp_path), query) == by_words
    assert best(Bm25Index(CORPUS, tmp_path, "unspaced"), query) == by_characters


def test_a_word_keeps_its_combining_marks_however_they_are_written(tmp_path: Path) -> None:
    texts = {"book": "किताब", "knife": "कातब", "hindi": "हिन्दी भाषा", "tamil": "தமிழ் மொழி", "cafe": "Café"}
    index = Bm25Index([Document(id, "", text) for id, text in texts.items()], tmp_path)
    for query, ids in (
        ("किताब", ["book"]),
        ("हिन्दी", ["hindi"]),
        ("हिन्द", []),
        ("தமிழ்", ["tamil"]),
        ("Cafe\u0301", ["cafe"]),
    ):
        assert [document.id for document in index.search([query], 5)[0]] == ids


def test_english_scores_do_not_depend_on_the_setting(tmp_path: Path) -> None:
    english = [
        Document(str(i), f"Title {i}", text) for i, text in enumerate(("a red fox", "the blue fox", "a dog's bone"))
    ]
    scores = [
        [(d.id, d.score) for d in Bm25Index(english, tmp_path, tokens).search(["the fox's red bone"], 3)[0]]
        for tokens in ("words", "unspaced")
    ]
    assert scores[0] == scores[1] != []


def test_the_two_ways_never_share_a_cached_index(tmp_path: Path) -> None:
    for tokens in ("words", "unspaced", "words"):
        Bm25Index(CORPUS, tmp_path, tokens)
    assert len([path for path in tmp_path.glob("bm25-*") if path.is_dir()]) == 2


def test_a_pipeline_takes_the_setting(tmp_path: Path) -> None:
    settings = SearchConfig(retriever="bm25", reranker="none", tokens="unspaced", top_k=1)
    assert [d.id for d in build_pipeline(CORPUS, settings, tmp_path).search_batch(["海淀区的大学"])[0]] == ["beijing"]

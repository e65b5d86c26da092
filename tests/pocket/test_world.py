"""The pocket world: its files, its sizes, its two halves, and that equal seeds give equal worlds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from calibadv.data.corpus import load_corpus
from calibadv.data.questions import load_questions
from calibadv.pocket import PocketPaths, lexicon, write_pocket_world
from calibadv.pocket.chains import Form
from calibadv.pocket.files import NUM_QUESTIONS, draw_questions
from calibadv.pocket.world import Half, build_world
from calibadv.types import Document, Question

MANIFEST = """{
 "version": 2,
 "seed": 0,
 "files": {
  "train.jsonl": "9656393c8fe16f3e43afe8f2ee3750af",
  "test.jsonl": "986ea7e13c766209f9384103451ddd04",
  "corpus.jsonl": "dd09ccbfd24fbcd51d16f322d84d8e88"
 }
}
"""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> PocketPaths:
    return write_pocket_world(tmp_path_factory.mktemp("pocket"), seed=0)


@pytest.fixture(scope="module")
def train(paths: PocketPaths) -> list[Question]:
    return load_questions(paths.train, name="pocket")


@pytest.fixture(scope="module")
def test(paths: PocketPaths) -> list[Question]:
    return load_questions(paths.test, name="pocket")


@pytest.fixture(scope="module")
def corpus(paths: PocketPaths) -> dict[str, Document]:
    return {document.id: document for document in load_corpus(paths.corpus)}


def test_sizes(train: list[Question], test: list[Question], corpus: dict[str, Document]) -> None:
    assert (len(train), len(test)) == (4000, 500)
    assert len(corpus) >= 2000
    assert max(len(d.text.split()) for d in corpus.values()) <= 30  # three of them fit an observation of the recipe
    assert max(len(q.text.split()) for q in train + test) <= 25
    assert {q.metadata["hops"] for q in test} == {"1", "2", "3"}
    assert {q.metadata["type"] for q in test} == {str(form) for form in Form}
    assert sum(len(q.golden_answers) > 1 for q in test) > 50


def test_train_and_test_need_no_common_document(train: list[Question], test: list[Question]) -> None:
    needed = [{doc_id for q in questions for doc_id in q.gold_doc_ids} for questions in (train, test)]
    assert needed[0].isdisjoint(needed[1])
    assert {q.text for q in train}.isdisjoint({q.text for q in test})


def test_gold_documents_hold_each_hop(train: list[Question], test: list[Question], corpus: dict[str, Document]) -> None:
    for question in train + test:
        hops = zip(question.sub_queries, question.gold_doc_ids, strict=True)
        assert all(query.endswith(f" of {corpus[doc_id].title}") for query, doc_id in hops)
        if question.metadata["type"] == Form.BRIDGE:
            assert question.golden_answers[0] in corpus[question.gold_doc_ids[-1]].text
            for doc_id, query in zip(question.gold_doc_ids, question.sub_queries[1:], strict=False):
                assert query.partition(" of ")[2] in corpus[doc_id].text


def test_comparisons_are_right() -> None:
    world = build_world(3)
    for chain in draw_questions(world, Half.TEST, 3):
        if chain.form is Form.COMPARISON:
            years = {hop.subject.name: int(hop.value) for hop in chain.hops}
            assert years.pop(chain.answer) < min(years.values())
        if chain.form is Form.YES_NO:
            assert (chain.answer == "yes") == (len({hop.value for hop in chain.hops}) == 1)


def test_no_answer_is_common(train: list[Question]) -> None:
    counts = Counter(q.golden_answers[0] for q in train)
    assert counts.most_common(1)[0][1] < 0.06 * len(train)
    assert len(counts) > 500


def test_most_names_share_a_word_with_another(corpus: dict[str, Document]) -> None:
    words = Counter(word for d in corpus.values() for word in d.title.split())
    shared = [d for d in corpus.values() if any(words[word] > 1 for word in d.title.split())]
    assert len(shared) > 0.9 * len(corpus)


def test_equal_seeds_give_equal_files(paths: PocketPaths, tmp_path: Path) -> None:
    again, other = write_pocket_world(tmp_path / "a", seed=0), write_pocket_world(tmp_path / "b", seed=1)
    assert again.train.read_bytes() == paths.train.read_bytes()
    assert again.test.read_bytes() == paths.test.read_bytes()
    assert again.corpus.read_bytes() == paths.corpus.read_bytes()
    assert other.corpus.read_bytes() != paths.corpus.read_bytes()


def test_the_world_of_seed_0_is_known(paths: PocketPaths) -> None:
    """The shipped policy, the recipes and the published numbers belong to these files: raise VERSION if they change."""
    assert json.loads((paths.corpus.parent / "manifest.json").read_text()) == json.loads(MANIFEST)


def test_files_that_are_there_are_left_alone_and_a_damaged_one_is_mended(tmp_path: Path) -> None:
    paths = write_pocket_world(tmp_path)
    written = paths.corpus.stat().st_mtime_ns
    assert write_pocket_world(tmp_path) == paths
    assert paths.corpus.stat().st_mtime_ns == written
    whole = paths.test.read_bytes()
    paths.test.write_bytes(whole[:1000])
    write_pocket_world(tmp_path)
    assert paths.test.read_bytes() == whole


def test_another_seed_in_the_same_folder_replaces_the_world(tmp_path: Path) -> None:
    first = write_pocket_world(tmp_path, seed=0).corpus.read_bytes()
    assert write_pocket_world(tmp_path, seed=1).corpus.read_bytes() != first


def test_name_lists_do_not_overlap() -> None:
    lists = (lexicon.FIRST_NAMES, lexicon.SURNAMES, lexicon.TOWNS, lexicon.COUNTIES, lexicon.COLLEGES, lexicon.NOUNS)
    words = [word for names in (*lists, lexicon.ADJECTIVES, lexicon.RIVERS) for word in names]
    assert [word for word, count in Counter(words).items() if count > 1] == []


def test_number_of_questions_is_what_the_files_hold(train: list[Question]) -> None:
    assert NUM_QUESTIONS[Half.TRAIN] == len(train)

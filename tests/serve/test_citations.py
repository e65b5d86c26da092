"""Which documents are cited, by hand."""

from __future__ import annotations

from calibadv.types import Document
from serve.agent.citations import Citation, Status, citations

OSLO = Document("1", "Ada", "Ada was born in Oslo.", 0.9)
BERGEN = Document("2", "Nils", "Nils was born in Bergen.", 0.4)
PARTY = Document("3", "Oslo", "A capital.", 0.2)


def test_documents_that_contain_the_answer_in_text_or_title_are_cited_where_they_were_first_found() -> None:
    found = citations("oslo", ((BERGEN, OSLO), (OSLO, PARTY)))
    assert found == (Citation(OSLO, 1, 2, Status.CITED), Citation(PARTY, 2, 2, Status.CITED))


def test_where_none_contains_it_those_of_the_last_search_were_read() -> None:
    assert citations("Paris", ((OSLO,), (BERGEN, OSLO))) == (
        Citation(BERGEN, 2, 1, Status.READ),
        Citation(OSLO, 1, 1, Status.READ),
    )


def test_a_part_of_a_word_yes_and_nothing_at_all_are_in_no_document() -> None:
    for answer in ("slo", "yes", "the", None):
        assert {one.status for one in citations(answer, ((OSLO,),))} == {Status.READ}


def test_a_last_search_that_found_nothing_leaves_the_one_before_and_none_leaves_nothing() -> None:
    assert citations("Paris", ((OSLO,), ())) == (Citation(OSLO, 1, 1, Status.READ),)
    assert citations("Paris", ((),)) == citations("Paris", ()) == ()

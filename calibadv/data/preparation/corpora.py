"""Prepares a corpus: any format in, a memory-mapped store out, streamed from end to end."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from calibadv.data.corpus import places_of_id, read_documents
from calibadv.data.corpus_store import CorpusStore, build_store
from calibadv.data.errors import RepeatedId
from calibadv.data.preparation.skipping import skip_list
from calibadv.data.tally import REPEATED, Tally


def prepare_corpus(source: Path, out: Path, *, skip_bad: bool = False) -> tuple[CorpusStore, Tally]:
    """(the store in `out`, what became of the source's rows). DataError names the file and the line of a bad one."""
    tally = Tally()
    with skip_list(out, skip=skip_bad) as skipped:
        try:
            store = build_store(read_documents(source, skipped, tally), out, skipped)
        except RepeatedId as error:
            # The store knows documents by their number only; a file that has to be mended is worth a second reading.
            first, second = islice(places_of_id(source, error.doc_id), 2)
            raise RepeatedId(second, error.doc_id, first) from error
    tally.leave_out(REPEATED, store.manifest.repeated)
    tally.refuse(store.manifest.skipped)
    return store, tally

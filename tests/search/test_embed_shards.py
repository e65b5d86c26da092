"""Embedding in shards: what is done stays done, what is broken is done again, and the whole is the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from calibadv.search.embed_shards import Shard, embed_shard, join_shards, missing_shards, plan_shards
from calibadv.search.embeddings import corpus_identity, embeddings_folder, load_or_embed
from calibadv.search.encoder import Encoded
from tests.search.fakes import CORPUS, WordEncoder

SHARDS = plan_shards(len(CORPUS), 2)


def test_a_plan_covers_every_row_once() -> None:
    assert (Shard(0, 0, 2), Shard(1, 2, 4), Shard(2, 4, 5)) == SHARDS
    assert plan_shards(0, 2) == ()
    with pytest.raises(ValueError, match="shards of 0 documents"):
        plan_shards(5, 0)


class DiesAtOslo(WordEncoder):
    def encode_passages(self, texts: Sequence[str], tokens: bool = True) -> Encoded:
        if any(text.startswith("Oslo") for text in texts):
            raise RuntimeError("killed")
        return super().encode_passages(texts, tokens)


def test_a_run_goes_on_where_one_died(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    encoder = DiesAtOslo()
    for shard in SHARDS[:2]:
        embed_shard(CORPUS, encoder, shard, parts)
    with pytest.raises(RuntimeError, match="killed"):
        embed_shard(CORPUS, encoder, SHARDS[2], parts)
    assert missing_shards(parts, SHARDS, WordEncoder.dim) == SHARDS[2:]


def test_joined_shards_are_the_embeddings_that_a_pipeline_reads(tmp_path: Path) -> None:
    encoder, parts = WordEncoder(), tmp_path / "parts"
    for shard in SHARDS[::-1]:
        embed_shard(CORPUS, encoder, shard, parts)
    join_shards(parts, SHARDS, encoder.dim, embeddings_folder(corpus_identity(CORPUS), encoder, tmp_path))
    assert not parts.exists()
    encoder.passages.clear()
    joined = load_or_embed(CORPUS, encoder, tmp_path, tokens=False)
    assert encoder.passages == []
    alone = load_or_embed(CORPUS, encoder, tmp_path / "alone", tokens=False)
    np.testing.assert_array_equal(joined.vectors, alone.vectors)


@pytest.mark.parametrize("broken", ["truncated", "without its manifest", "of another width", "of another range"])
def test_a_shard_that_is_not_whole_is_missing(tmp_path: Path, broken: str) -> None:
    for shard in SHARDS:
        embed_shard(CORPUS, WordEncoder(), shard, tmp_path)
    assert missing_shards(tmp_path, SHARDS, WordEncoder.dim) == ()
    path, wanted, dim = tmp_path / "vectors-000001.f32", SHARDS, WordEncoder.dim
    if broken == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif broken == "without its manifest":
        path.with_suffix(".json").unlink()
    elif broken == "of another width":
        dim = 128
    else:
        wanted = plan_shards(len(CORPUS), 3)
    expected = SHARDS[1:2] if broken in ("truncated", "without its manifest") else wanted
    assert missing_shards(tmp_path, wanted, dim) == expected


def test_what_is_missing_or_too_big_is_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tmp_path / "parts"
    embed_shard(CORPUS, WordEncoder(), SHARDS[0], parts)
    with pytest.raises(ValueError, match=r"2 of 3 shards are missing.*Shard\(number=1, first=2, last=4\)"):
        join_shards(parts, SHARDS, WordEncoder.dim, tmp_path / "whole")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(ValueError, match="the shards are kept"):
        join_shards(parts, SHARDS[:1], WordEncoder.dim, tmp_path / "whole")
    assert parts.is_dir()

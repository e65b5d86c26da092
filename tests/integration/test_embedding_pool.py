"""Shards embedded by a Ray Data actor pool, none of them twice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from calibadv.cluster.embedding_pool import EmbeddingPool, embed_on_ray
from calibadv.search.embed_shards import missing_shards, plan_shards
from calibadv.types import Document
from tests.search.fakes import CORPUS, WordEncoder

pytestmark = pytest.mark.integration


def corpus() -> Sequence[Document]:
    return CORPUS


@pytest.mark.usefixtures("local_ray")
def test_a_pool_embeds_every_shard_that_is_missing(tmp_path: Path) -> None:
    shards, dim = plan_shards(len(CORPUS), 2), WordEncoder.dim
    embed = partial(embed_on_ray, corpus, WordEncoder, folder=tmp_path, pool=EmbeddingPool(workers=2, num_cpus=0.5))
    assert sorted(embed(shards[:2])) == [0, 1]
    assert missing_shards(tmp_path, shards, dim) == shards[2:]
    written = (tmp_path / "vectors-000000.f32").stat().st_mtime_ns
    assert sorted(embed(shards)) == [0, 1, 2]
    assert missing_shards(tmp_path, shards, dim) == ()
    assert (tmp_path / "vectors-000000.f32").stat().st_mtime_ns == written
    assert list(embed([])) == []

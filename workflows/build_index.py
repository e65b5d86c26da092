"""Embed a corpus and build its index: `workflows/build_index.py CORPUS [--kind ivfpq] [--workers 8] …`.

Embeds in shards into the cache folder, in this process or on a Ray Data actor pool; called again after an interruption
it embeds only the shards that are missing. Then builds the FAISS index of the kind that is asked for, with a manifest,
and says where it is. Exact search (`flat`) needs no index beside the embeddings, unless it is to be in pieces.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("build_index")  # before what takes seconds to import

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from calibadv.search.build import check_corpus, make_encoder, origin_of
from calibadv.search.corpus_source import open_corpus
from calibadv.search.embed_shards import Shard, embed_shard, join_shards, missing_shards, plan_shards
from calibadv.search.embeddings import corpus_identity, embeddings_folder, is_complete, load_or_embed
from calibadv.search.encoder import TextEncoder
from calibadv.search.faiss_index import KINDS, IndexOptions, built_in
from calibadv.search.settings import SearchSettings
from calibadv.search.stored_index import ROWS_A_PIECE, load_or_build
from calibadv.types import Document, FloatArray
from workflows.command import run_command

log = logging.getLogger("workflows.build_index")  # also when this file is __main__


def main(arguments: Sequence[str] | None = None) -> int:
    """0: built, or found as it was. 130: interrupted; the shards that are done are kept."""
    args = _parser().parse_args(arguments)
    settings = SearchSettings(
        encoder=args.encoder,
        query_prefix=args.query_prefix,
        passage_prefix=args.passage_prefix,
        max_tokens=args.max_tokens,
        batch_size=args.batch_size,
        threads=args.threads,
        device=args.device,
        index=IndexOptions(kind=args.kind, **_numbers(args.set)),
    )
    cache_dir = Path(args.cache_dir).absolute()
    cache_dir.mkdir(parents=True, exist_ok=True)
    documents = open_corpus(args.corpus)
    check_corpus(documents)
    # Workers embed on their own devices; this process may have none, and only asks what the vectors will be.
    encoder = make_encoder(replace(settings, device="cpu") if args.workers else settings)
    built_in(settings.index, len(documents), encoder.dim)  # refused now, not after hours of embedding
    embed(args, settings, documents, encoder, cache_dir)
    if args.kind == "flat" and args.rows_a_piece is None:
        log.info("exact search reads the embeddings where they are: no index to build")
        return 0

    def vectors() -> FloatArray:
        return load_or_embed(documents, encoder, cache_dir, tokens=False).vectors

    started_s = time.monotonic()
    folder = load_or_build(
        vectors,
        origin_of(documents, settings, encoder),
        settings.index,
        cache_dir,
        rows_a_piece=args.rows_a_piece or ROWS_A_PIECE,
        threads=settings.threads,
    )
    size = sum(path.stat().st_size for path in folder.iterdir())
    log.info("index: %s, %.1f MB, %.0f s", folder, size / 1e6, time.monotonic() - started_s)
    if args.link:
        _link(Path(args.link), folder)
    return 0


def embed(
    args: argparse.Namespace,
    settings: SearchSettings,
    documents: Sequence[Document],
    encoder: TextEncoder,
    cache_dir: Path,
) -> None:
    """The corpus's embeddings in the cache: nothing to do when they are there, else the shards that are missing."""
    folder = embeddings_folder(corpus_identity(documents), encoder, cache_dir)
    if is_complete(folder):
        log.info("embeddings: %s, from the cache", folder)
        return
    shards = plan_shards(len(documents), args.rows_a_shard)
    parts = folder.with_name(f"{folder.name}.shards")
    missing = missing_shards(parts, shards, encoder.dim)
    log.info("embedding %d documents: %d of %d shards are missing", len(documents), len(missing), len(shards))
    if args.workers:
        done = _on_ray(args, settings, missing, parts)
    else:
        done = (_embedded(documents, encoder, shard, parts) for shard in missing)
    started_s = time.monotonic()
    for count, _ in enumerate(done, start=1):
        left_s = (time.monotonic() - started_s) / count * (len(missing) - count)
        log.info("shard %d of %d, about %.0f s to go", count, len(missing), left_s)
    join_shards(parts, shards, encoder.dim, folder)
    log.info("embeddings: %s", folder)


def _embedded(documents: Sequence[Document], encoder: TextEncoder, shard: Shard, folder: Path) -> int:
    embed_shard(documents, encoder, shard, folder)
    return shard.number


def _on_ray(args: argparse.Namespace, settings: SearchSettings, shards: Sequence[Shard], folder: Path) -> Iterator[int]:
    import ray

    from calibadv.cluster.embedding_pool import EmbeddingPool, embed_on_ray
    from calibadv.cluster.local_ray import init_local_ray

    if not ray.is_initialized():
        if args.address == "local":
            init_local_ray(log_to_driver=False)
        else:
            ray.init(address=args.address, log_to_driver=False)
    threads = {} if settings.threads is None else {"OMP_NUM_THREADS": str(settings.threads)}
    pool = EmbeddingPool(args.workers, args.cpus_per_worker, args.gpus_per_worker, threads)
    documents = partial(open_corpus, str(Path(args.corpus).absolute()))
    yield from embed_on_ray(documents, partial(make_encoder, settings), shards, folder, pool)


def _link(link: Path, folder: Path) -> None:
    if link.exists() and not link.is_symlink():
        raise ValueError(f"{link} is there and is no link: move it away, or give --link another name")
    fresh = link.with_name(f"{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder, target_is_directory=True)
    os.replace(fresh, link)
    log.info("%s -> %s", link, folder)


def _numbers(pairs: Sequence[str]) -> dict[str, int]:
    numbers = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in IndexOptions.__dataclass_fields__ or name == "kind" or not value.isdigit():
            known = ", ".join(sorted(set(IndexOptions.__dataclass_fields__) - {"kind"}))
            raise ValueError(f"--set {pair}: expected NAME=NUMBER with NAME one of {known}")
        numbers[name] = int(value)
    return numbers


def _parser() -> argparse.ArgumentParser:
    defaults = SearchSettings()
    parser = argparse.ArgumentParser(
        prog="build_index.py",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("corpus", help="a corpus file, or a store that prepare_data.py corpus made")
    add("--cache-dir", default=".cache/search", help="where everything is kept; with --workers, seen by every node")
    add("--encoder", default=defaults.encoder, help="minilm, a model folder, or a hub name (intfloat/e5-base-v2)")
    add("--query-prefix", default="", help="default: the encoder's own (E5 has one)")
    add("--passage-prefix", default="", help="default: the encoder's own")
    add("--max-tokens", type=int, default=defaults.max_tokens)
    add("--batch-size", type=int, default=defaults.batch_size, help="passages of one forward")
    add("--threads", type=int, default=defaults.threads, help="of each process")
    add("--device", default="cpu", help="of the encoders, e.g. cuda:0 (each worker sees its own GPU as that)")
    add("--kind", choices=KINDS, default="flat")
    add("--set", action="append", default=[], metavar="NAME=NUMBER", help="a parameter of the index: hnsw_links=64")
    add("--rows-a-piece", type=int, default=None, help="vectors of one FAISS file; pieces can be served by shards")
    add("--rows-a-shard", type=int, default=50_000, help="documents embedded at a time; what a crash may lose")
    add("--workers", type=int, default=0, help="actors of the Ray Data pool; 0: in this process")
    add("--cpus-per-worker", type=float, default=1.0)
    add("--gpus-per-worker", type=float, default=0.0)
    add("--address", default="local", help='the Ray cluster; "auto" joins the one that runs')
    add("--link", default="", help="a symbolic link to set to the finished index, for faiss_index")
    return parser


def _cli() -> int:
    return run_command(main)


if __name__ == "__main__":
    sys.exit(_cli())

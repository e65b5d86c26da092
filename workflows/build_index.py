"""Embed a corpus and build its index: `workflows/build_index.py CORPUS [--index ivfpq] [--workers 8] …`.

Embeds in shards into the cache folder, in this process or on a Ray Data actor pool; called again after an interruption
it embeds only the shards that are missing. Then builds the FAISS index of the kind that is asked for, with a manifest,
and says where it is. Exact search (`flat`) needs no index beside the embeddings, but for pieces or a link.
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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from calibadv.data.corpus import load_corpus
from calibadv.search.build import check_corpus, origin_of
from calibadv.search.embed_shards import Shard, embed_missing
from calibadv.search.embeddings import load_or_embed
from calibadv.search.encoder import Encoder, TextEncoder
from calibadv.search.faiss_index import build_parameters
from calibadv.search.reading import add_search_flags, flagged_search, parse_flags
from calibadv.search.settings import SearchConfig
from calibadv.search.stored_index import ROWS_A_PIECE, load_or_build
from workflows.command import command_parser, run_command

log = logging.getLogger("workflows.build_index")  # also when this file is __main__


def main(arguments: Sequence[str] | None = None, make_encoder: Callable[[SearchConfig], TextEncoder] = Encoder) -> int:
    """0: built, or found as it was. 130: interrupted; the shards that are done are kept."""
    args = parse_flags(_parser(), arguments)
    config, cache_dir = flagged_search(args), Path(args.cache_dir).absolute()
    cache_dir.mkdir(parents=True, exist_ok=True)
    documents = load_corpus(Path(args.corpus))
    check_corpus(documents)
    # Workers embed on their own devices; this process may have none, and only asks what the vectors will be.
    encoder = make_encoder(config.but(device="cpu") if args.workers else config)
    build_parameters(config, len(documents), encoder.dim)  # refused now, not after hours of embedding
    embedded = partial(_embedded_on_ray, args, partial(make_encoder, config)) if args.workers else None
    embed_missing(documents, encoder, cache_dir, args.rows_a_shard, embedded)
    if config.index == "flat" and args.rows_a_piece is None and not args.link:
        log.info("exact search reads the embeddings where they are: no index to build")
        return 0
    started_s = time.monotonic()
    folder = load_or_build(
        lambda: load_or_embed(documents, encoder, cache_dir, tokens=False).vectors,
        origin_of(documents, config, encoder),
        config,
        cache_dir,
        rows_a_piece=args.rows_a_piece or ROWS_A_PIECE,
    )
    size = sum(path.stat().st_size for path in folder.iterdir())
    log.info("index: %s, %.1f MB, %.0f s", folder, size / 1e6, time.monotonic() - started_s)
    if args.link:
        _link(Path(args.link), folder)
    return 0


def _embedded_on_ray(
    args: argparse.Namespace, make_encoder: Callable[[], TextEncoder], shards: Sequence[Shard], folder: Path
) -> Iterator[int]:
    from calibadv.cluster.embedding_pool import EmbeddingPool, embed_on_ray
    from calibadv.cluster.ray_session import ray_at

    pool = EmbeddingPool(args.workers, args.cpus_per_worker, args.gpus_per_worker, flagged_search(args).threads)
    opened = partial(load_corpus, Path(args.corpus).absolute())
    with ray_at(args.address, setting="--address"):
        yield from embed_on_ray(opened, make_encoder, shards, folder, pool)


def _link(link: Path, folder: Path) -> None:
    if link.exists() and not link.is_symlink():
        raise ValueError(f"{link} is there and is no link: move it away, or give --link another name")
    fresh = link.with_name(f"{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder, target_is_directory=True)
    os.replace(fresh, link)
    log.info("%s -> %s", link, folder)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("corpus", help="a corpus file, or a store that prepare_data.py corpus made")
    add("--cache-dir", default=".cache/search", help="where everything is kept; with --workers, seen by every node")
    add("--rows-a-piece", type=int, default=None, help="vectors of one FAISS file; pieces can be served by shards")
    add("--rows-a-shard", type=int, default=50_000, help="documents embedded at a time; what a crash may lose")
    add("--workers", type=int, default=0, help="actors of the Ray Data pool; 0: in this process")
    add("--cpus-per-worker", type=float, default=1.0)
    add("--gpus-per-worker", type=float, default=0.0)
    add("--address", default="local", help='the Ray cluster; "auto" joins the one that runs')
    add("--link", default="", help="a symbolic link to set to the finished index, for faiss_index")
    add_search_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))

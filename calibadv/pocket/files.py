"""Writes the pocket world as the files that real data has: FlashRAG questions and a title/text corpus, both jsonl."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibadv.files import write_text
from calibadv.json_lines import json_line
from calibadv.pocket.chains import Chain, ChainSampler
from calibadv.pocket.world import Half, World, build_world

POCKET = "pocket"  # what settings call this world and its policy, as a data set and as a model
VERSION = 2
NUM_QUESTIONS: Mapping[Half, int] = {Half.TRAIN: 4000, Half.TEST: 500}


@dataclass(frozen=True, slots=True)
class PocketPaths:
    """The three files of a written pocket world."""

    train: Path
    test: Path
    corpus: Path


def data_file(given: str, part: str, cache: Path) -> Path:
    """The file that a setting names: of this world the train, test or corpus, written to the cache, else the path's."""
    if given != POCKET:
        return Path(given).absolute()
    file: Path = getattr(write_pocket_world(cache / "pocket"), part)
    return file


def policy_path() -> Path:
    """The folder of the warm-started pocket policy that ships with the package."""
    return Path(__file__).parent / "policy"


def write_pocket_world(folder: Path, seed: int = 0) -> PocketPaths:
    """The files of the world of `seed` in `folder`, written unless they are already there unchanged.

    `manifest.json` is written last: it holds the seed, the version and each file's digest, and it alone says that the
    three files are whole.
    """
    paths = PocketPaths(folder / "train.jsonl", folder / "test.jsonl", folder / "corpus.jsonl")
    manifest = folder / "manifest.json"
    if manifest.is_file() and json.loads(manifest.read_text("utf-8")) == _manifest(paths, seed):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    manifest.unlink(missing_ok=True)
    world = build_world(seed)
    documents = sorted((e.document for e in world.entities.values()), key=lambda d: d.id)
    _write_lines(paths.corpus, ({"id": d.id, "title": d.title, "text": d.text} for d in documents))
    for half, path in ((Half.TRAIN, paths.train), (Half.TEST, paths.test)):
        _write_lines(path, (_flashrag(half, i, chain) for i, chain in enumerate(draw_questions(world, half, seed))))
    write_text(manifest, json.dumps(_manifest(paths, seed), indent=1) + "\n")
    return paths


def draw_questions(world: World, half: Half, seed: int) -> list[Chain]:
    """The questions of one half of a world."""
    rng = random.Random(f"pocket questions {half} {seed}")
    return ChainSampler(world, half, rng).distinct(NUM_QUESTIONS[half])


def _flashrag(half: Half, number: int, chain: Chain) -> dict[str, Any]:
    return {
        "id": f"{half}_{number}",
        "question": chain.text,
        "golden_answers": [chain.answer, *chain.aliases],
        "metadata": {
            "type": str(chain.form),
            "hops": len(chain.hops),
            "sub_queries": [hop.query for hop in chain.hops],
            "gold_doc_ids": [hop.subject.id for hop in chain.hops],
        },
    }


def _manifest(paths: PocketPaths, seed: int) -> dict[str, Any]:
    files = {path.name: _digest(path) for path in (paths.train, paths.test, paths.corpus)}
    return {"version": VERSION, "seed": seed, "files": files}


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else "missing"


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(map(json_line, rows)))

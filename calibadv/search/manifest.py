"""What an index was made of, written beside it: an index that does not fit corpus and encoder is refused in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """The corpus and the encoder of some vectors: equal origins give equal vectors, row by row.

    `encoder` is the name that was asked for, and only shown; `identity` hashes its weights, prefixes and token limit.
    """

    corpus: str  # fingerprint
    documents: int
    encoder: str
    identity: str
    query_prefix: str
    passage_prefix: str
    max_tokens: int
    dim: int


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """The whole description of an index folder: its origin, its kind, and the rows of each of its pieces in order."""

    origin: Origin
    kind: str
    parameters: Mapping[str, int] = field(default_factory=dict)
    rows: tuple[int, ...] = ()

    @property
    def starts(self) -> tuple[int, ...]:
        """The first row of each piece in the corpus."""
        return tuple(sum(self.rows[:piece]) for piece in range(len(self.rows)))


def index_key(origin: Origin, kind: str, parameters: Mapping[str, int], rows_a_piece: int) -> str:
    """24 hex digits that name an index in a cache: the same for the same corpus, encoder, kind and parameters."""
    content = [_FORMAT, _compared(origin), kind, sorted(parameters.items()), rows_a_piece]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def write_manifest(folder: Path, manifest: IndexManifest) -> None:
    """Writes `manifest.json`. It comes last: a folder that has one is complete."""
    (folder / MANIFEST).write_text(json.dumps({"format": _FORMAT, **asdict(manifest)}, indent=1) + "\n", "utf-8")


def read_manifest(path: Path) -> IndexManifest:
    """The manifest of an index folder, or of the file itself. `ValueError` when it is missing or cannot be read."""
    file = path / MANIFEST if path.is_dir() else path
    remedy = "build the index again with workflows/build_index.py"
    try:
        fields_of = json.loads(file.read_text("utf-8"))
        if fields_of.pop("format") != _FORMAT:
            raise ValueError("it has another format")
        origin = Origin(**fields_of.pop("origin"))
        return IndexManifest(origin=origin, **{**fields_of, "rows": tuple(fields_of["rows"])})
    except FileNotFoundError:
        raise ValueError(f"{file} is not there, so nothing says what {path} holds: {remedy}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no manifest of an index ({error}): {remedy}") from error


def check_origin(found: Origin, wanted: Origin, where: Path) -> None:
    """Raises `ValueError` unless both are of one corpus and encoder: names each difference, both values, what to do.

    The encoder's name is not compared: a folder and a hub name may hold the same weights.
    """
    differing = [name for name, value in _compared(found).items() if value != _compared(wanted)[name]]
    if not differing:
        return
    said = [_difference(name, found, wanted) for name in differing if name != "identity"]
    if not said:
        said = [
            f"encoder: the index has {found.encoder!r} ({_short(found.identity)}), the settings {wanted.encoder!r} "
            f"({_short(wanted.identity)})"
        ]
    raise ValueError(
        f"the index {where} does not fit: {'; '.join(said)}. Use the corpus, encoder and prefixes that it was built "
        "with, or build one for these with workflows/build_index.py"
    )


def _compared(origin: Origin) -> dict[str, Any]:
    return {f.name: getattr(origin, f.name) for f in fields(Origin) if f.name != "encoder"}


def _difference(name: str, found: Origin, wanted: Origin) -> str:
    return f"{name}: the index has {getattr(found, name)!r}, the settings give {getattr(wanted, name)!r}"


def _short(identity: str) -> str:
    return f"weights {identity[:12]}"

"""Rows -> micro-batches of a token budget: padded to one length, or packed one after the other without padding.

B rows, T tokens, N action tokens, S segments of a packed micro-batch, K keys that its segments read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibadv.batching import TOKEN_FIELDS, Row, common_beginning
from calibadv.types import IntArray

PAD_ID = 0  # masked everywhere; any id of the vocabulary will do
LEAST_SHARED = 16  # tokens: a shorter common beginning costs more in pieces of attention than it saves


@dataclass(frozen=True, slots=True)
class Segments:
    """How attention reads packed rows, in which beginnings that rows have in common stand once.

    Segments tile the micro-batch in order. A segment's queries read, causally from the bottom right, the keys of the
    tokens before it in its rows and then its own.
    """

    positions_T: IntArray  # of each token in its rows
    lengths_S: IntArray
    key_lengths_S: IntArray  # at least the segment's own length
    keys_K: IntArray  # places of what each segment reads, one segment after the other


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows that fit the token budget together. Flat [N] arrays hold their action tokens, row by row."""

    ids_BT: IntArray  # padded on the right; packed rows are one row
    predicts_N: IntArray  # the place, in the flattened ids, whose hidden state predicts each action token
    targets_N: IntArray  # the action tokens
    row_N: IntArray  # which of `rows` each is of
    rows: tuple[int, ...]  # its rows, as indices of those that were given
    tokens: Mapping[str, NDArray[Any]]  # every [N] field of the rows by its name
    segments: Segments | None = None  # None: padded

    @property
    def num_actions(self) -> int:
        """N."""
        return len(self.row_N)

    def by_row(self, flat_N: NDArray[Any]) -> list[NDArray[Any]]:
        """A flat array's part of each of `rows`."""
        return np.split(flat_N, np.cumsum(np.bincount(self.row_N, minlength=len(self.rows)))[:-1])


def micro_batches(rows: Sequence[Row], token_budget: int, *, packed: bool = False) -> list[MicroBatch]:
    """Micro-batches of at most `token_budget` tokens that are computed, padding included (a longer row goes alone).

    Padded ones hold rows of like length, longest first. `packed` ones hold rows that begin alike, and compute what
    those have in common once (at least `LEAST_SHARED` tokens of it).
    """
    batches: list[list[int]] = []
    if packed:
        ids = [_inputs(row) for row in rows]
        order = sorted(range(len(rows)), key=lambda index: ids[index].astype(">i8").tobytes())
        spent = token_budget
        for before, index in zip([None, *order], order, strict=False):
            common = 0 if before is None else common_beginning(ids[before], ids[index])
            new = len(ids[index]) - max(0, common - LEAST_SHARED + 1)  # at most: see `_branch`
            if spent + new > token_budget:
                batches.append([])
                spent, new = 0, len(ids[index])
            batches[-1].append(index)
            spent += new
        return [_packed(rows, batch) for batch in batches]
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index].ids_T), reverse=True):
        current = batches[-1] if batches else []
        if current and (len(current) + 1) * len(rows[current[0]].ids_T) <= token_budget:
            current.append(index)
        else:
            batches.append([index])
    return [_padded(rows, batch) for batch in batches]


def padding() -> MicroBatch:
    """One token that is no action: a pass that trains and reports nothing, for a rank that has to keep step."""
    nothing_N = np.empty(0, np.float32)
    tokens: dict[str, Any] = dict.fromkeys(TOKEN_FIELDS, nothing_N) | {"turn_N": np.empty(0, np.int64)}
    return _padded([Row(np.full(1, PAD_ID, np.int64), np.zeros(1, np.bool_), 0, **tokens)], [0])


def _padded(rows: Sequence[Row], chosen: Sequence[int]) -> MicroBatch:
    width = len(rows[chosen[0]].ids_T)
    ids_BT = np.full((len(chosen), width), PAD_ID, dtype=np.int64)
    for b, index in enumerate(chosen):
        ids_BT[b, : len(rows[index].ids_T)] = rows[index].ids_T
    predicts = [_predicts(rows[index]) + b * width for b, index in enumerate(chosen)]
    return _micro_batch(rows, chosen, ids_BT, predicts)


def _packed(rows: Sequence[Row], chosen: Sequence[int]) -> MicroBatch:
    """The rows, which come sorted by their ids, as a tree of segments in one row."""
    parts: list[IntArray] = []  # ids that are new, row after row
    positions: list[IntArray] = []
    starts: list[int] = []  # of segments, in any order
    reads: list[IntArray] = []  # by segment: the places of its row from the first token to its own last
    path: list[int] = []  # segments of the row before, from its first token on
    ids_T = place_T = np.empty(0, np.int64)  # of the row before, and where each of its tokens stands
    predicts = []
    total = 0
    for index in chosen:
        before_T, ids_T = ids_T, _inputs(rows[index])
        shared, path = _branch(starts, reads, path, common_beginning(before_T, ids_T))
        new = np.arange(total, total + len(ids_T) - shared)
        place_T = np.concatenate([place_T[:shared], new])
        if len(new):
            path.append(len(starts))
            starts.append(total)
            reads.append(place_T)
            parts.append(ids_T[shared:])
            positions.append(np.arange(shared, len(ids_T)))
            total += len(new)
        predicts.append(place_T[_predicts(rows[index])])
    order = np.argsort(starts)
    read = [reads[s] for s in order]
    segments = Segments(
        positions_T=np.concatenate(positions),
        lengths_S=np.diff([*np.sort(starts), total]),
        key_lengths_S=np.array([len(keys) for keys in read]),
        keys_K=np.concatenate(read),
    )
    return _micro_batch(rows, chosen, np.concatenate(parts)[None], predicts, segments)


def _branch(starts: list[int], reads: list[IntArray], path: list[int], common: int) -> tuple[int, list[int]]:
    """How many tokens a row takes from the row before, and the segments that they are.

    Splits a segment in place where the rows part inside it, `LEAST_SHARED` tokens or more behind its beginning: less
    than `LEAST_SHARED` of the tokens in common are computed again.
    """
    kept: list[int] = []
    depth = 0  # tokens of `kept`
    for segment in path:
        end = len(reads[segment])
        if end <= common:
            kept.append(segment)
            depth = end
            continue
        if common - depth >= LEAST_SHARED:
            kept.append(len(starts))
            starts.append(starts[segment])
            reads.append(reads[segment][:common])
            starts[segment] += common - depth
            depth = common
        break
    return depth, kept


def _micro_batch(
    rows: Sequence[Row],
    chosen: Sequence[int],
    ids_BT: IntArray,
    predicts: Sequence[IntArray],
    segments: Segments | None = None,
) -> MicroBatch:
    given = [rows[index] for index in chosen]
    return MicroBatch(
        ids_BT,
        np.concatenate(predicts),
        np.concatenate([row.ids_T[row.action_T] for row in given]),
        np.repeat(np.arange(len(given)), [len(row.advantages_N) for row in given]),
        tuple(chosen),
        {name: np.concatenate([getattr(row, name) for row in given]) for name in TOKEN_FIELDS},
        segments,
    )


def _inputs(row: Row) -> IntArray:
    """What has to be computed of a row: all but its last token, which predicts nothing."""
    return row.ids_T[:-1]


def _predicts(row: Row) -> IntArray:
    """The place in its row before each action token."""
    return row.action_T.nonzero()[0] - 1

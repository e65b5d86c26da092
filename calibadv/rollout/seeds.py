"""Sampling seeds: a pure function of what is sampled, never of when or where it is sampled."""

from __future__ import annotations

import hashlib

_BITS = 48  # fits every engine's seed type


def sampling_seed(run_seed: int, step: int, question_id: str, sample: int, turn: int = 0) -> int:
    """A seed in [0, 2^48) for one turn of one rollout. Equal arguments give equal seeds on every machine."""
    key = f"{run_seed}|{step}|{sample}|{turn}|{question_id}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=_BITS // 8).digest(), "big")

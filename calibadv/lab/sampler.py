"""The laboratory's engine: a `rollout.GenerateFn` over a static cache, one token a call for every live row.

Forced tokens (prompts, observations) and sampled ones go through the same call, so that rows need not keep step. A turn
that goes on from a cached row is never prefilled again.

B live rows, V vocabulary.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from calibadv.lab.language import EOS, Language
from calibadv.lab.policy import LONGEST, Cache, Policy
from calibadv.rollout.protocols import Generation, Sampling, StopReason
from calibadv.types import FloatArray, IntArray


@dataclass(slots=True)
class Measures:
    """Sums over sampled tokens, of the full distribution that they were drawn from or cut out of."""

    tokens: int = 0
    entropy: float = 0.0  # nats
    tail: float = 0.0  # probability of all words that no dialogue uses

    def means(self) -> dict[str, float]:
        """Metrics by path; {} where nothing was sampled."""
        if not self.tokens:
            return {}
        return {"policy/entropy": self.entropy / self.tokens, "policy/tail_mass": self.tail / self.tokens}


@dataclass(slots=True)
class _Row:
    """One cached sequence, and the turn that is being sampled in it."""

    ids: list[int]  # what the cache holds, and then what is still to be fed
    chance: FloatArray  # uniform numbers, one a token of the turn
    sampling: Sampling
    done: asyncio.Future[Generation]
    fed: int = 0  # how many ids are in the cache
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Sampler:
    """Samples for every rollout that awaits a turn, all at once.

    A token depends on the turn's seed, the policy and, in the last bits, on what is batched beside it: equal calls in
    equal order give equal tokens.
    """

    def __init__(self, policy: Policy, lang: Language, *, rows: int, logprobs_at: float = 1.0) -> None:
        self.policy = policy
        self.measures: Measures | None = None  # where set, what is sampled is added
        self._cache = Cache(policy, rows)
        self._capacity = rows
        self._logprobs_at = logprobs_at  # temperature
        self._live: list[_Row] = []  # row i of the cache is the i-th of these
        self._waiting: deque[_Row] = deque()
        self._driver: asyncio.Task[None] | None = None
        self._tags = {lang.id_of["</search>"], lang.id_of["</answer>"]}
        self._eos = lang.id_of[EOS]
        self._tail_from = lang.first_tail

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
        """The next turn. ValueError for a sequence that may outgrow the policy's positions."""
        if len(prompt_ids) + sampling.max_tokens > LONGEST:
            raise ValueError(f"{len(prompt_ids)} + {sampling.max_tokens} tokens: the policy has {LONGEST} positions")
        row = _Row(
            ids=prompt_ids.tolist(),
            chance=np.random.default_rng(sampling.seed).random(sampling.max_tokens, dtype=np.float32),
            sampling=sampling,
            done=asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(row)
        if self._driver is None or self._driver.done():
            self._driver = asyncio.ensure_future(self._drive())
        return await row.done

    async def _drive(self) -> None:
        try:
            while self._waiting or self._live:
                self._admit()
                if self._live:
                    self._step()
                await asyncio.sleep(0)  # whoever has its turn asks for the next one now
        except Exception as error:  # whoever waits hears of it
            for row in (*self._live, *self._waiting):
                if not row.done.done():
                    row.done.set_exception(error)

    def _admit(self) -> None:
        """Turns that go on from a row take it up in place; rows that nobody goes on from make room for the others."""
        ended = [index for index, row in enumerate(self._live) if row.done.done()]
        strangers: deque[_Row] = deque()
        for row in self._waiting:
            for place in ended:
                cached = self._live[place].ids[: self._live[place].fed]
                if row.ids[: len(cached)] == cached:
                    row.fed = min(len(cached), len(row.ids) - 1)  # its last is fed again: what follows is drawn from it
                    self._live[place] = row
                    ended.remove(place)
                    break
            else:
                strangers.append(row)
        for place in reversed(ended):
            last = len(self._live) - 1
            self._cache.move(last, place, self._live[last].fed)
            self._live[place] = self._live[last]
            self._live.pop()
        while strangers and len(self._live) < self._capacity:
            self._live.append(strangers.popleft())
        self._waiting = strangers

    @torch.inference_mode()
    def _step(self) -> None:
        live = self._live
        ids_B = torch.tensor([row.ids[row.fed] for row in live])
        hidden_BH = self._cache.step(ids_B, torch.tensor([row.fed for row in live]))
        ready = []
        for index, row in enumerate(live):
            row.fed += 1
            if row.fed == len(row.ids):
                ready.append(index)
        if ready:
            self._sample([live[i] for i in ready], hidden_BH if len(ready) == len(live) else hidden_BH[ready])

    def _sample(self, rows: list[_Row], hidden_BH: Tensor) -> None:
        logits_BV = hidden_BH @ self.policy.embed.weight.T
        logp_BV = torch.log_softmax(logits_BV, dim=-1)
        p_BV = logp_BV.exp()
        temperature, top_p = rows[0].sampling.temperature, rows[0].sampling.top_p
        assert all((row.sampling.temperature, row.sampling.top_p) == (temperature, top_p) for row in rows), (
            "what is sampled at once is sampled alike"
        )
        if temperature == 0:
            tokens_B = logits_BV.argmax(-1)
        else:
            chance_B = torch.tensor([row.chance[len(row.sampled)] for row in rows])
            from_BV = p_BV if temperature == 1 else torch.softmax(logits_BV / temperature, dim=-1)
            tokens_B = drawn(from_BV, chance_B, top_p)
        if self.measures is not None:
            self.measures.tokens += len(rows)
            self.measures.entropy -= float((p_BV * logp_BV).sum())
            self.measures.tail += float(p_BV[:, self._tail_from :].sum())
        told_BV = logp_BV if self._logprobs_at == 1 else torch.log_softmax(logits_BV / self._logprobs_at, dim=-1)
        logprobs = told_BV.gather(1, tokens_B[:, None])[:, 0].tolist()
        for row, token, logprob in zip(rows, tokens_B.tolist(), logprobs, strict=True):
            row.sampled.append(token)
            row.logprobs.append(logprob)
            row.ids.append(token)
            if token in self._tags:
                self._end(row, StopReason.TAG)
            elif token == self._eos:
                self._end(row, StopReason.EOS)
            elif len(row.sampled) == row.sampling.max_tokens:
                self._end(row, StopReason.LENGTH)

    def _end(self, row: _Row, stop: StopReason) -> None:
        row.done.set_result(Generation(np.array(row.sampled), np.array(row.logprobs, dtype=np.float32), stop))


def drawn(p_BV: Tensor, chance_B: Tensor, top_p: float) -> Tensor:
    """Token ids [B]: those at which the distribution's cumulated mass passes `chance` in [0, 1).

    With `top_p` < 1 of the nucleus, scaled to 1: the likeliest words, as long as the mass before them is below `top_p`.
    """
    if top_p < 1:
        # numpy sorts rows some twenty times as fast as torch on a CPU.
        falling_BV = np.sort(p_BV.numpy(), axis=-1)[:, ::-1]
        inside_B = (np.cumsum(falling_BV, axis=-1) - falling_BV < top_p).sum(axis=-1)
        least_B = np.take_along_axis(falling_BV, inside_B[:, None] - 1, axis=-1)
        p_BV = torch.where(p_BV >= torch.from_numpy(least_B), p_BV, 0.0)
    mass_BV = p_BV.cumsum(-1)
    # `chance` is at most 1 - 2**-24, and that much of a float32 is always less than it: some word passes.
    return torch.searchsorted(mass_BV, chance_B[:, None] * mass_BV[:, -1:], right=True)[:, 0]

"""The running rows of the torch engine: one token for each at a time, in one batch that rows join and leave.

A matmul's last bits depend on the shape of its batch. The model therefore runs in float64, whose last bits lie far
below anything that is sampled or reported in float32, and every row draws from its own generator: equal prompts,
sampling and weights give equal tokens, in whatever order and company they run.

Shapes: B running rows, T cached tokens (left-padded), V vocabulary.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from calibadv.rollout.joined_cache import INSTEAD, JoinedCache, check_layers
from calibadv.rollout.nucleus import nucleus
from calibadv.rollout.protocols import Generation, Sampling, StopReason

_TRIED = ((3, 1, 4), (1, 5, 9, 2, 6, 5, 3))  # prompts of the trial at the start
_UNBOUNDED = 2**31  # positions of a model that says no number of them
_STOP_MARGIN = 8  # tokens decoded before the longest stop string: they may decode to nothing


@dataclass(slots=True)
class Row:
    """A request while it runs."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    answer: Future[Generation]
    noise: torch.Generator = field(init=False)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.noise = torch.Generator().manual_seed(self.sampling.seed % 2**63)


class RunningBatch:
    """Rows that run together over a Hugging Face model. Of one thread, under `torch.inference_mode`.

    `tempered`: log-probs are those of the sampling temperature.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, *, tempered: bool) -> None:
        self.model = model
        self._tokenizer, self._tempered = tokenizer, tempered
        text = model.config.get_text_config(decoder=True)
        self.max_len = int(getattr(text, "max_position_embeddings", None) or _UNBOUNDED)
        self._eos = _eos_ids(model, tokenizer)
        self._rows: list[Row] = []
        self._cache: JoinedCache | None = None  # of the rows; none without rows

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forgets all rows."""
        self._rows, self._cache = [], None

    def try_out(self, tolerance: float) -> None:
        """Two rows, the second joined while the first runs, must have the log-probs of the model's plain forward pass.

        ValueError naming the architecture if they do not, or if the model cannot be run so.
        """
        check_layers(self.model.config)
        rows = [Row(prompt, Sampling(8, 0.0, 0, ()), Future()) for prompt in _TRIED]
        name = type(self.model).__name__
        try:
            with torch.inference_mode():
                for row in rows:
                    self.join([row])
                    self.advance()
                plain = [self._plain_logprobs(row) for row in rows]
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError, IndexError) as error:
            raise ValueError(f"the torch engine cannot run {name} ({error}): {INSTEAD}") from error
        finally:
            self.clear()
        difference = max(float(np.abs(np.subtract(row.logprobs, p)).max()) for row, p in zip(rows, plain, strict=True))
        if not difference <= tolerance:
            raise ValueError(
                f"the torch engine cannot serve {name}: in a batch its log-probs are up to {difference:.2g} nats from "
                f"those of a row alone: {INSTEAD}"
            )

    def _plain_logprobs(self, row: Row) -> list[float]:
        ids_1T = torch.tensor([[*row.prompt_ids, *row.ids]])
        logprobs_TV = self.model(input_ids=ids_1T, use_cache=False).logits[0].log_softmax(-1)
        start = len(row.prompt_ids)
        taken: list[float] = logprobs_TV[start - 1 : -1].gather(1, ids_1T[0, start:, None])[:, 0].tolist()
        return taken

    def join(self, new: list[Row]) -> list[Row]:
        """Runs the prompts of new rows, equal ones once, and joins their caches to the running ones'; the rows done."""
        prompts = sorted({row.prompt_ids for row in new})
        length = max(map(len, prompts))
        ids_BT = torch.tensor([[0] * (length - len(p)) + list(p) for p in prompts])
        mask_BT = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
        fresh = JoinedCache.of(self.model.config, mask_BT)
        logits_BV = self._forward(ids_BT, fresh)
        which_B = torch.tensor([prompts.index(row.prompt_ids) for row in new])
        fresh.select(which_B)
        if self._cache is None:
            self._cache = fresh
        else:
            self._cache.join(fresh)
        self._rows += new
        return self._sample(new, logits_BV[which_B])

    def advance(self) -> list[Row]:
        """One token for every running row; the rows that are done."""
        if self._cache is None:
            return []
        last_B1 = torch.tensor([[row.ids[-1]] for row in self._rows])
        self._cache.grow()
        return self._sample(self._rows, self._forward(last_B1, self._cache))

    def drop(self, done: list[Row]) -> None:
        """Takes finished rows out of the batch."""
        gone = {id(row) for row in done}
        keep = [i for i, row in enumerate(self._rows) if id(row) not in gone]
        self._rows = [self._rows[i] for i in keep]
        if not keep or self._cache is None:
            self.clear()
        else:
            self._cache.select(torch.tensor(keep))

    def _forward(self, ids_BT: torch.Tensor, cache: JoinedCache) -> torch.Tensor:
        positions_BT = (cache.mask_BT.cumsum(1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :]
        output = self.model(
            input_ids=ids_BT,
            attention_mask=cache.mask_BT,
            position_ids=positions_BT,
            past_key_values=cache.layers,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_BV: torch.Tensor = output.logits[:, -1]
        return logits_BV

    def _sample(self, rows: list[Row], logits_BV: torch.Tensor) -> list[Row]:
        """Give each row its next token by inverse CDF of its own noise; the rows that are done."""
        temperature_B1 = torch.tensor([[row.sampling.temperature] for row in rows], dtype=torch.float64)
        logits_BV = logits_BV.double()
        told_at_B1 = torch.where(temperature_B1 > 0, temperature_B1, 1.0) if self._tempered else 1.0
        logprobs_BV = (logits_BV / told_at_B1).log_softmax(-1)
        probs_BV = (logits_BV / temperature_B1.clamp(min=1e-6)).softmax(-1)
        if any(row.sampling.top_p < 1 for row in rows):
            probs_BV = nucleus(probs_BV, torch.tensor([[row.sampling.top_p] for row in rows], dtype=torch.float64))
        cdf_BV = probs_BV.cumsum(-1)
        noise_B1 = torch.stack([torch.rand(1, generator=row.noise, dtype=torch.float64) for row in rows])
        sampled_B1 = torch.searchsorted(cdf_BV, noise_B1 * cdf_BV[:, -1:], right=True).clamp(max=cdf_BV.shape[1] - 1)
        chosen_B1 = torch.where(temperature_B1 > 0, sampled_B1, logits_BV.argmax(-1, keepdim=True))
        logprobs_B = logprobs_BV.gather(1, chosen_B1)[:, 0].tolist()
        done = []
        for row, token, logprob in zip(rows, chosen_B1[:, 0].tolist(), logprobs_B, strict=True):
            row.ids.append(token)
            row.logprobs.append(logprob)
            if self._finish(row):
                done.append(row)
        return done

    def _finish(self, row: Row) -> bool:
        """Answer the row's request if this token was its last."""
        if row.answer.cancelled():
            return True
        stop = self._stop_reason(row)
        if stop is None:
            if row.sampling.heard is not None:
                row.sampling.heard(row.ids[-1:])
            return False
        if row.answer.set_running_or_notify_cancel():
            ids = np.asarray(row.ids, dtype=np.int64)
            row.answer.set_result(Generation(ids, np.asarray(row.logprobs, dtype=np.float32), stop))
        return True

    def _stop_reason(self, row: Row) -> StopReason | None:
        if row.sampling.stop:
            # A token is at least one byte, so that the string just completed lies in this many last tokens.
            reach = max(len(s.encode()) for s in row.sampling.stop) + _STOP_MARGIN
            text = str(self._tokenizer.decode(row.ids[-reach:], skip_special_tokens=False))
            if any(s in text for s in row.sampling.stop):
                return StopReason.TAG
        if row.ids[-1] in self._eos:
            return StopReason.EOS
        full = len(row.prompt_ids) + len(row.ids) >= self.max_len
        return StopReason.LENGTH if full or len(row.ids) >= row.sampling.max_tokens else None


def _eos_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that end a sequence: the tokenizer's and those of the model's generation config, as in vLLM."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    ids = set(declared) if isinstance(declared, list) else {declared}
    return frozenset(int(i) for i in ids | {tokenizer.eos_token_id} if i is not None)

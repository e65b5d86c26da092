"""A small batched engine in plain torch whose tokens do not depend on what a request was batched with.

A matmul's last bits depend on the shape of its batch. The model therefore runs in float64, whose last bits lie far
below anything that is sampled or reported in float32, and every request draws from its own generator: equal prompts,
sampling and weights give equal tokens, in whatever order and company the requests arrive.

Shapes: B running rows, T cached tokens (left-padded), V vocabulary.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from calibadv.rollout.joined_cache import INSTEAD, JoinedCache, check_layers
from calibadv.rollout.nucleus import nucleus
from calibadv.rollout.protocols import EngineDied, Generation, Sampling, StopReason
from calibadv.types import IntArray

_TRIED = ((3, 1, 4), (1, 5, 9, 2, 6, 5, 3))  # prompts of the trial at the start
_SAME = {torch.float64: 1e-6, torch.float32: 1e-3}  # nats between a row in a batch and alone
_UNBOUNDED = 2**31  # positions of a model that says no number of them
_STOP_MARGIN = 8  # tokens decoded before the longest stop string: they may decode to nothing


@dataclass(slots=True)
class _Row:
    """A request while it runs."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    answer: Future[Generation]
    noise: torch.Generator = field(init=False)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.noise = torch.Generator().manual_seed(self.sampling.seed % 2**63)


class TorchEngine:
    """Continuous batching over a Hugging Face model in one worker thread. Implements `Engine`."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_batch: int = 64,
        compute_dtype: torch.dtype = torch.float64,
        tempered_logprobs: bool = False,
        version: int = 0,
    ) -> None:
        if max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, got {max_batch}")
        self._model = model.to(compute_dtype).eval()
        if "grouped" in str(getattr(model.config, "_experts_implementation", "")):
            model.set_experts_implementation("eager")  # the grouped product has no float64
        self._tokenizer = tokenizer
        self._max_batch, self._tempered = max_batch, tempered_logprobs
        text = self._model.config.get_text_config(decoder=True)
        self._max_len = int(getattr(text, "max_position_embeddings", None) or _UNBOUNDED)
        self._eos = _eos_ids(self._model, tokenizer)
        self._version = version
        self._inbox: queue.SimpleQueue[_Row | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # held for a step, and while weights change
        self._door = threading.Lock()
        self._failure: BaseException | None = None
        self._open: dict[int, _Row] = {}  # requests not yet answered, by identity; guarded by the door
        # Of the worker thread: the running rows and their cache, none without rows.
        self._rows: list[_Row] = []
        self._cache: JoinedCache | None = None
        self._try_batches(_SAME.get(compute_dtype, 0.1))
        self._thread = threading.Thread(target=self._run, name="torch-engine", daemon=True)
        self._thread.start()

    @classmethod
    def from_folder(cls, folder: str | Path, **kwargs: Any) -> TorchEngine:
        """An engine over a model saved with `save_pretrained`, its tokenizer beside it.

        ValueError by the architecture's name for a model whose rows would not be the same in a batch as alone.
        """
        if not (Path(folder) / "config.json").is_file():
            raise ValueError(f"model folder {str(folder)!r} has no config.json: save a model there first")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return cls(model, AutoTokenizer.from_pretrained(folder), **kwargs)

    @property
    def version(self) -> int:
        """The policy version of the weights that it serves."""
        return self._version

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
        """Sample one turn. A cancelled task's request is dropped at the next step."""
        if not 0 < len(prompt_ids) < self._max_len:
            raise ValueError(
                f"the prompt has {len(prompt_ids)} tokens, the model's length is {self._max_len}: "
                "at least one token must go in and one must have room to be sampled"
            )
        if sampling.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {sampling.max_tokens}")
        row = _Row(tuple(np.asarray(prompt_ids).tolist()), sampling, Future())
        with self._door:
            self._check_alive()
            self._open[id(row)] = row
            self._inbox.put(row)
        try:
            return await asyncio.wrap_future(row.answer)
        except asyncio.CancelledError:
            row.answer.cancel()
            raise

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Copy the weights into the model and serve `version`. Raises RuntimeError while requests are running."""
        # A tied head is the embedding: a separate copy of it must not win.
        tied = {"lm_head.weight"} if self._model.config.tie_word_embeddings else set()
        state = {name: tensor for name, tensor in named_tensors if name not in tied}
        # Before the lock: the worker takes it again and again, so that waiting for it may outlast what is running.
        with self._door:
            self._refuse_while_running()
        with self._lock, self._door:
            self._refuse_while_running()
            names = set(self._model.state_dict()) - tied
            missing, unknown = sorted(names - set(state)), sorted(set(state) - names)
            if missing or unknown:
                raise ValueError(f"the weights do not fit the model: missing {missing[:5]}, unknown {unknown[:5]}")
            self._model.load_state_dict(state, strict=False)
            self._version = version

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise EngineDied(f"the torch engine is gone: {self._failure!r}") from self._failure

    def _refuse_while_running(self) -> None:
        self._check_alive()
        running = sum(not row.answer.done() for row in self._open.values())
        if running:
            raise RuntimeError(f"{running} requests are running: wait for them before changing weights or sleeping")

    def sleep(self) -> None:
        """Refuses while requests are running; beside them it holds nothing but the weights, which stay."""
        with self._door:
            self._refuse_while_running()

    def wake(self) -> None:
        """Nothing to do: `sleep` gave nothing back."""

    def close(self) -> None:
        """Stop the thread and fail what still waits. May be called twice."""
        self._inbox.put(None)
        self._thread.join()

    def _try_batches(self, tolerance: float) -> None:
        """Two rows, the second joined while the first runs, must have the log-probs of the model's plain forward pass.

        ValueError naming the architecture if they do not, or if the model cannot be run so.
        """
        check_layers(self._model.config)
        rows = [_Row(prompt, Sampling(8, 0.0, 0, ()), Future()) for prompt in _TRIED]
        name = type(self._model).__name__
        try:
            with torch.inference_mode():
                for row in rows:
                    self._prefill([row])
                    self._advance()
                plain = [self._plain_logprobs(row) for row in rows]
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError, IndexError) as error:
            raise ValueError(f"the torch engine cannot run {name} ({error}): {INSTEAD}") from error
        finally:
            self._clear()
        difference = max(float(np.abs(np.subtract(row.logprobs, p)).max()) for row, p in zip(rows, plain, strict=True))
        if not difference <= tolerance:
            raise ValueError(
                f"the torch engine cannot serve {name}: in a batch its log-probs are up to {difference:.2g} nats from "
                f"those of a row alone: {INSTEAD}"
            )

    def _plain_logprobs(self, row: _Row) -> list[float]:
        ids_1T = torch.tensor([[*row.prompt_ids, *row.ids]])
        logprobs_TV = self._model(input_ids=ids_1T, use_cache=False).logits[0].log_softmax(-1)
        start = len(row.prompt_ids)
        taken: list[float] = logprobs_TV[start - 1 : -1].gather(1, ids_1T[0, start:, None])[:, 0].tolist()
        return taken

    def _clear(self) -> None:
        self._rows, self._cache = [], None

    # ---- in the worker thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        failure: BaseException = RuntimeError("it was closed")
        try:
            with torch.inference_mode():
                while self._admit():
                    with self._lock:
                        self._drop(self._advance())
        except BaseException as error:
            failure = error
        with self._door:
            self._failure = failure
            unanswered = list(self._open.values())
        for row in unanswered:
            if not row.answer.done():
                row.answer.set_exception(EngineDied(f"the torch engine is gone: {failure!r}"))
        self._clear()

    def _admit(self) -> bool:
        """Take in what waits, as far as there is room; wait for a request when none runs. False: close."""
        new: list[_Row] = []
        while not (self._rows or new) or not self._inbox.empty():
            if len(self._rows) + len(new) >= self._max_batch:
                break
            row = self._inbox.get()
            if row is None:
                return False
            new.append(row)
        if new:
            with self._lock:
                self._drop(self._prefill(new))
        return True

    def _prefill(self, new: list[_Row]) -> list[_Row]:
        """Run the prompts of new rows, equal ones once, and join their caches to the running ones'."""
        prompts = sorted({row.prompt_ids for row in new})
        length = max(map(len, prompts))
        ids_BT = torch.tensor([[0] * (length - len(p)) + list(p) for p in prompts])
        mask_BT = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
        fresh = JoinedCache.of(self._model.config, mask_BT)
        logits_BV = self._forward(ids_BT, fresh)
        which_B = torch.tensor([prompts.index(row.prompt_ids) for row in new])
        fresh.select(which_B)
        if self._cache is None:
            self._cache = fresh
        else:
            self._cache.join(fresh)
        self._rows += new
        return self._sample(new, logits_BV[which_B])

    def _advance(self) -> list[_Row]:
        """One token for every running row; the rows that are done."""
        if self._cache is None:
            return []
        last_B1 = torch.tensor([[row.ids[-1]] for row in self._rows])
        self._cache.grow()
        return self._sample(self._rows, self._forward(last_B1, self._cache))

    def _forward(self, ids_BT: torch.Tensor, cache: JoinedCache) -> torch.Tensor:
        positions_BT = (cache.mask_BT.cumsum(1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :]
        output = self._model(
            input_ids=ids_BT,
            attention_mask=cache.mask_BT,
            position_ids=positions_BT,
            past_key_values=cache.layers,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_BV: torch.Tensor = output.logits[:, -1]
        return logits_BV

    def _sample(self, rows: list[_Row], logits_BV: torch.Tensor) -> list[_Row]:
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

    def _finish(self, row: _Row) -> bool:
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

    def _stop_reason(self, row: _Row) -> StopReason | None:
        if row.sampling.stop:
            # A token is at least one byte, so that the string just completed lies in this many last tokens.
            reach = max(len(s.encode()) for s in row.sampling.stop) + _STOP_MARGIN
            text = str(self._tokenizer.decode(row.ids[-reach:], skip_special_tokens=False))
            if any(s in text for s in row.sampling.stop):
                return StopReason.TAG
        if row.ids[-1] in self._eos:
            return StopReason.EOS
        full = len(row.prompt_ids) + len(row.ids) >= self._max_len
        return StopReason.LENGTH if full or len(row.ids) >= row.sampling.max_tokens else None

    def _drop(self, done: list[_Row]) -> None:
        """Take finished rows out of the batch."""
        if not done:
            return
        gone = {id(row) for row in done}
        keep = [i for i, row in enumerate(self._rows) if id(row) not in gone]
        self._rows = [self._rows[i] for i in keep]
        if keep and self._cache is not None:
            self._cache.select(torch.tensor(keep))
        else:
            self._clear()
        with self._door:
            for row in done:
                self._open.pop(id(row), None)


def _eos_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that end a sequence: the tokenizer's and those of the model's generation config, as in vLLM."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    ids = set(declared) if isinstance(declared, list) else {declared}
    return frozenset(int(i) for i in ids | {tokenizer.eos_token_id} if i is not None)

"""A small batched engine in plain torch whose tokens do not depend on what a request was batched with.

Here are its worker thread, its requests and its weights; `torch_batch.py` has what is computed, and why it is the same.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from calibadv.rollout.protocols import EngineDied, Generation, Sampling
from calibadv.rollout.torch_batch import Row, RunningBatch
from calibadv.types import IntArray

_SAME = {torch.float64: 1e-6, torch.float32: 1e-3}  # nats between a row in a batch and alone


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
    ) -> None:
        if max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, got {max_batch}")
        model = model.to(compute_dtype).eval()
        if "grouped" in str(getattr(model.config, "_experts_implementation", "")):
            model.set_experts_implementation("eager")  # the grouped product has no float64
        self._batch = RunningBatch(model, tokenizer, tempered=tempered_logprobs)  # the worker thread's
        self._max_batch, self._version = max_batch, 0
        self._inbox: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # held for a step, and while weights change
        self._door = threading.Lock()
        self._failure: BaseException | None = None
        self._open: dict[int, Row] = {}  # requests not yet answered, by identity; guarded by the door
        self._batch.try_out(_SAME.get(compute_dtype, 0.1))
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
        if not 0 < len(prompt_ids) < self._batch.max_len:
            raise ValueError(
                f"the prompt has {len(prompt_ids)} tokens, the model's length is {self._batch.max_len}: "
                "at least one token must go in and one must have room to be sampled"
            )
        if sampling.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {sampling.max_tokens}")
        row = Row(tuple(np.asarray(prompt_ids).tolist()), sampling, Future())
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
        tied = {"lm_head.weight"} if self._batch.model.config.tie_word_embeddings else set()
        state = {name: tensor for name, tensor in named_tensors if name not in tied}
        # Before the lock: the worker takes it again and again, so that waiting for it may outlast what is running.
        with self._door:
            self._refuse_while_running()
        with self._lock, self._door:
            self._refuse_while_running()
            names = set(self._batch.model.state_dict()) - tied
            missing, unknown = sorted(names - set(state)), sorted(set(state) - names)
            if missing or unknown:
                raise ValueError(f"the weights do not fit the model: missing {missing[:5]}, unknown {unknown[:5]}")
            self._batch.model.load_state_dict(state, strict=False)
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

    # ---- in the worker thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        failure: BaseException = RuntimeError("it was closed")
        try:
            with torch.inference_mode():
                while self._admit():
                    with self._lock:
                        self._drop(self._batch.advance())
        except BaseException as error:
            failure = error
        with self._door:
            self._failure = failure
            unanswered = list(self._open.values())
        for row in unanswered:
            if not row.answer.done():
                row.answer.set_exception(EngineDied(f"the torch engine is gone: {failure!r}"))
        self._batch.clear()

    def _admit(self) -> bool:
        """Take in what waits, as far as there is room; wait for a request when none runs. False: close."""
        new: list[Row] = []
        while not (self._batch or new) or not self._inbox.empty():
            if len(self._batch) + len(new) >= self._max_batch:
                break
            row = self._inbox.get()
            if row is None:
                return False
            new.append(row)
        if new:
            with self._lock:
                self._drop(self._batch.join(new))
        return True

    def _drop(self, done: list[Row]) -> None:
        """Take finished rows out of the batch and off the requests that are not yet answered."""
        if not done:
            return
        self._batch.drop(done)
        with self._door:
            for row in done:
                self._open.pop(id(row), None)

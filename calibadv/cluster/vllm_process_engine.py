"""A vLLM engine whose core has a process of its own (vLLM's AsyncLLM), behind `GenerateFn`.

Scheduling and the model then take no turns with the agents' event loop for one interpreter's lock. An event loop in a
thread speaks to the core; weights go there through memory that both have mapped.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from calibadv.cluster.engine import NamedTensors
from calibadv.cluster.shared_block import BlockWriter
from calibadv.cluster.vllm_base import VllmBase, check_forgotten, check_idle, gone, half_loaded
from calibadv.cluster.vllm_requests import check_complete, check_request, generation_of, sampling_params
from calibadv.cluster.vllm_settings import VllmSettings, check_arguments
from calibadv.rollout.protocols import Generation, Sampling
from calibadv.types import IntArray

T = TypeVar("T")
CHECK_S = 1.0  # how often a call that waits asks whether the core is still there


class VllmProcessEngine(VllmBase):
    """vLLM's AsyncLLM with continuous batching over concurrent calls. Implements `LiveEngine`."""

    def __init__(self, settings: VllmSettings) -> None:
        super().__init__(settings)
        self._running: set[asyncio.Task[Any]] = set()  # requests; of the engine's loop, as is what follows
        self._failure = ""
        self._exchanging = self._closed = False
        self._weights = BlockWriter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm-core", daemon=True)
        self._thread.start()
        try:
            self._engine: Any = None
            self._engine = self._call(self._start())
        except BaseException:
            self._stop_loop()
            raise

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
        """Sample one turn. Cancelling the awaiting task takes the request out of the engine."""
        check_request(prompt_ids, sampling, self._settings.max_model_len)
        return await asyncio.wrap_future(self._sent(self._generate(np.asarray(prompt_ids).tolist(), sampling)))

    def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        """Copy the weights into the running model, forget cached prefixes, serve `version`. Blocks until done."""
        self._call(self._load(named_tensors))
        self._version = version

    def exchange_weights(self, named_tensors: NamedTensors, version: int) -> None:
        """The same while requests run: they pause, are read again by the new weights, and go on with them.

        What they have sampled stays, with the log-probs that it was sampled with.
        """
        self._call(self._exchange(named_tensors))
        self._version = version

    def sleep(self) -> None:
        """Weights and KV cache away (vLLM's level 2), so that `wake` is followed by `load_weights`.

        Raises RuntimeError while requests run.
        Without vLLM's sleep mode, as on a CPU, it only forgets cached prefixes.
        """
        self._call(self._fall_asleep())

    def wake(self) -> None:
        """Take the memory again: the weights', and only when they are there the KV cache's."""
        self._call(self._wake_up())

    def close(self) -> None:
        """Fail what still waits, end the core's process and the loop. May be called twice."""
        if not self._closed:
            self._sent(self._end("it was closed")).result()
            self._closed = True
            self._stop_loop()

    def _sent(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._closed:
            work.close()
            raise gone("it was closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        from vllm.v1.engine.exceptions import EngineDeadError

        answer = self._sent(work)
        try:
            while not wait([answer], CHECK_S).done:
                # vLLM leaves a call unanswered that was sent to a dead core before its death was noticed.
                if self._engine is not None and self._engine.errored:
                    answer.cancel()
                    raise gone("its core ended")
            return answer.result()
        except EngineDeadError as error:  # a core may die while nothing runs
            raise gone(repr(error)) from error

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._weights.forget()

    # ---- in the engine's loop ---------------------------------------------------------------------------------

    async def _start(self) -> Any:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        check_arguments(self._arguments, {field.name for field in fields(AsyncEngineArgs)})
        engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**self._arguments))
        await engine.collective_rpc("die_with_engine", args=(os.getpid(),))
        return engine

    async def _end(self, why: str) -> None:
        """The core's end, and that of all requests."""
        self._failure = self._failure or why
        for request in self._running:
            request.cancel()
        self._engine.shutdown()

    async def _generate(self, prompt_ids: list[int], sampling: Sampling) -> Generation:
        from vllm.v1.engine.exceptions import EngineDeadError

        self._check_alive()
        if self._half_loaded and not self._exchanging:
            raise half_loaded()
        request = asyncio.current_task()
        assert request is not None
        self._running.add(request)
        told = 0
        try:
            prompt = {"prompt_token_ids": prompt_ids}
            async for output in self._engine.generate(prompt, sampling_params(sampling), str(next(self._ids))):
                completion = output.outputs[0]
                end = len(completion.token_ids) - output.finished  # what comes together may have the last one in it
                if sampling.heard is not None and end > told:
                    sampling.heard(list(completion.token_ids[told:end]))
                    told = end
                if output.finished:
                    return generation_of(completion)
        except EngineDeadError as error:
            self._failure = self._failure or repr(error)
        except asyncio.CancelledError:
            if not self._failure:
                raise
        finally:
            self._running.discard(request)
        raise gone(self._failure or "a request ended without an answer")

    def _check_alive(self) -> None:
        if self._failure:
            raise gone(self._failure)

    async def _reset(self) -> None:
        self._check_alive()
        check_idle(len(self._running))
        check_forgotten(await self._engine.reset_prefix_cache())

    async def _load(self, named_tensors: NamedTensors) -> None:
        await self._reset()
        await self._write(named_tensors)

    async def _exchange(self, named_tensors: NamedTensors) -> None:
        self._check_alive()
        self._exchanging = True  # what is asked meanwhile waits in vLLM
        await self._engine.pause_generation(mode="keep", clear_cache=False)
        try:
            await self._write(named_tensors)
            check_forgotten(await self._engine.reset_prefix_cache(reset_running_requests=True))
        except BaseException as error:
            await self._end(f"new weights came half-way: {error}")  # nobody can go on with them
            raise
        await self._engine.resume_generation()
        self._exchanging = False

    async def _write(self, named_tensors: NamedTensors) -> None:
        self._half_loaded = True
        missing = [set(names) for names in await self._engine.collective_rpc("parameter_names")]
        for filling in self._weights.filled(named_tensors):
            written_by_rank = await self._engine.collective_rpc("receive_block", args=filling)
            self._weights.forget()
            for left, written in zip(missing, written_by_rank, strict=True):
                left.difference_update(written)
        check_complete(missing)
        self._half_loaded = False

    async def _fall_asleep(self) -> None:
        await self._reset()
        if self._sleep_mode:
            await self._engine.sleep(level=2)

    async def _wake_up(self) -> None:
        if not self._sleep_mode:
            return
        with self._waking(await self._engine.collective_rpc("gpu_memory")):
            for part in ("weights", "kv_cache"):
                await self._engine.wake_up(tags=[part])

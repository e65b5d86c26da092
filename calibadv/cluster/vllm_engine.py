"""A vLLM engine behind `GenerateFn`: many asyncio requests, one thread that steps the engine.

Token ids go in; token ids and log-probs come out. Nothing is decoded and encoded again: text exists only inside vLLM,
to find the stop strings.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from calibadv.cluster.engine import NamedTensors
from calibadv.cluster.shared_block import BlockWriter
from calibadv.cluster.vllm_base import VllmBase, check_forgotten, check_idle, gone, half_loaded
from calibadv.cluster.vllm_requests import batches, check_complete, check_request, generation_of, sampling_params
from calibadv.cluster.vllm_settings import VllmSettings, check_arguments
from calibadv.rollout.protocols import EngineDied, Generation, Sampling
from calibadv.types import IntArray

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Submit:
    id: str
    prompt_ids: list[int]
    sampling: Sampling
    answer: Future[Generation]
    told: int = 0  # tokens of which `sampling.heard` knows

    def tell(self, token_ids: Sequence[int]) -> None:
        """All tokens so far."""
        new, self.told = token_ids[self.told :], len(token_ids)
        if self.sampling.heard is not None and new:
            self.sampling.heard(list(new))


@dataclass(frozen=True, slots=True)
class _Abort:
    id: str


@dataclass(frozen=True, slots=True)
class _Call:
    function: Callable[[Any], Any]  # given the LLMEngine, in its own thread
    answer: Future[Any]


class VllmEngine(VllmBase):
    """vLLM's in-process LLMEngine with continuous batching over concurrent calls. Implements `Engine`.

    Everything that touches vLLM happens in one thread, which owns the engine from its start to its end.
    """

    def __init__(self, settings: VllmSettings) -> None:
        super().__init__(settings)
        self._inbox: queue.SimpleQueue[_Submit | _Abort | _Call | None] = queue.SimpleQueue()
        self._door = threading.Lock()  # guards `_failure` against a request that arrives while the thread ends
        self._failure: BaseException | None = None
        self._waiting: dict[str, _Submit] = {}  # of the stepping thread
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="vllm-step", daemon=True)
        self._thread.start()
        ready.result()

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
        """Sample one turn. Cancelling the awaiting task takes the request out of the engine."""
        check_request(prompt_ids, sampling, self._settings.max_model_len)
        if self._half_loaded:
            raise half_loaded()
        request = _Submit(str(next(self._ids)), np.asarray(prompt_ids).tolist(), sampling, Future())
        self._send(request)
        try:
            return await asyncio.wrap_future(request.answer)
        except asyncio.CancelledError:
            self._inbox.put(_Abort(request.id))
            raise

    def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        """Copy the weights into the running model, forget cached prefixes, serve `version`. Blocks until done."""
        self._call(lambda engine: self._load(engine, named_tensors))
        self._version = version

    def sleep(self) -> None:
        """Weights and KV cache away (vLLM's level 2), so that `wake` is followed by `load_weights`.

        Raises RuntimeError while requests run.
        Without vLLM's sleep mode, as on a CPU, it only forgets cached prefixes.
        """
        self._call(self._fall_asleep)

    def wake(self) -> None:
        """Take the memory again: the weights', and only when they are there the KV cache's."""
        self._call(self._wake_up)

    def close(self) -> None:
        """Stop the thread, fail what still waits and free the model's memory. May be called twice."""
        self._inbox.put(None)
        self._thread.join()

    def _send(self, command: _Submit | _Call) -> None:
        with self._door:
            if self._failure is not None:
                raise gone(repr(self._failure)) from self._failure
            self._inbox.put(command)

    def _call(self, function: Callable[[Any], Any]) -> Any:
        command = _Call(function, Future())
        self._send(command)
        return command.answer.result()

    # ---- in the stepping thread -------------------------------------------------------------------------------

    def _run(self, ready: Future[None]) -> None:
        engine: Any = None
        failure: BaseException = EngineDied("it was closed")
        try:
            from vllm.engine.arg_utils import EngineArgs
            from vllm.v1.engine.llm_engine import LLMEngine

            check_arguments(self._arguments, {field.name for field in fields(EngineArgs)})
            engine = LLMEngine.from_engine_args(EngineArgs(**self._arguments))
            ready.set_result(None)
            while self._serve_inbox(engine):
                if self._waiting:
                    self._deliver(engine.step())
        except BaseException as error:
            logger.exception("the vLLM engine died")
            failure = error
        with self._door:
            self._failure = failure
        if not ready.done():
            ready.set_exception(failure)
        self._fail_all(failure)
        if engine is not None:
            engine.engine_core.shutdown()

    def _serve_inbox(self, engine: Any) -> bool:
        """Carry out what has been asked, waiting for it only when there is nothing to step. False: close."""
        while not self._waiting or not self._inbox.empty():
            command = self._inbox.get()
            match command:
                case None:
                    return False
                case _Submit():
                    self._submit(engine, command)
                case _Abort():
                    if self._waiting.pop(command.id, None) is not None:
                        engine.abort_request([command.id])
                case _Call():
                    try:
                        command.answer.set_result(command.function(engine))
                    except Exception as error:
                        if getattr(engine.model_executor, "is_failed", False):  # a tensor-parallel worker has died
                            command.answer.set_exception(gone(repr(error)))
                            raise
                        command.answer.set_exception(error)
        return True

    def _submit(self, engine: Any, request: _Submit) -> None:
        if request.answer.cancelled():
            return
        prompt = {"prompt_token_ids": request.prompt_ids}
        try:
            internal_id = engine.add_request(request.id, prompt, sampling_params(request.sampling))
        except ValueError as error:  # this request's fault, not the engine's
            request.answer.set_exception(error)
        else:
            self._waiting[request.id] = request
            # Else vLLM decodes every sampled token a second time, for a text beside its log-prob.
            engine.output_processor.request_states[internal_id].logprobs_processor.tokenizer = None

    def _deliver(self, outputs: list[Any]) -> None:
        for output in outputs:
            if not output.finished:
                if (request := self._waiting.get(output.request_id)) is not None:
                    request.tell(output.outputs[0].token_ids)
            elif (request := self._waiting.pop(output.request_id, None)) is not None:
                generation = generation_of(output.outputs[0])
                if request.answer.set_running_or_notify_cancel():
                    request.answer.set_result(generation)

    def _fail_all(self, failure: BaseException) -> None:
        pending: list[_Submit | _Call] = list(self._waiting.values())
        while not self._inbox.empty():
            command = self._inbox.get()
            if isinstance(command, _Submit | _Call):
                pending.append(command)
        for command in pending:
            if command.answer.set_running_or_notify_cancel():
                command.answer.set_exception(gone(repr(failure)))
        self._waiting.clear()

    def _reset(self, engine: Any) -> None:
        check_idle(len(self._waiting))
        check_forgotten(engine.reset_prefix_cache())

    def _fall_asleep(self, engine: Any) -> None:
        self._reset(engine)
        if self._sleep_mode:
            engine.sleep(level=2)  # level 1 would copy weights to the CPU and back, which the next version replaces

    def _wake_up(self, engine: Any) -> None:
        if not self._sleep_mode:
            return
        with self._waking(engine.collective_rpc("gpu_memory")):
            for part in ("weights", "kv_cache"):
                engine.wake_up(tags=[part])

    def _load(self, engine: Any, named_tensors: NamedTensors) -> None:
        self._reset(engine)
        self._half_loaded = True
        missing = [set(names) for names in engine.collective_rpc("parameter_names")]  # of each tensor-parallel rank
        for written_by_rank in self._written(engine, named_tensors):
            for left, written in zip(missing, written_by_rank, strict=True):
                left.difference_update(written)
        check_complete(missing)
        self._half_loaded = False

    def _written(self, engine: Any, named_tensors: NamedTensors) -> Iterator[list[list[str]]]:
        """Hands the weights over, some at a time; the names that each tensor-parallel rank wrote."""
        if self._settings.tensor_parallel_size == 1:  # in this process: nothing is copied on the way
            for batch in batches(named_tensors):
                yield engine.collective_rpc("receive_weights", args=(batch,))
            return
        writer = BlockWriter()
        for filling in writer.filled(named_tensors):
            yield engine.collective_rpc("receive_block", args=filling)
            writer.forget()

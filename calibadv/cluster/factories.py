"""What an engine actor builds when it starts: its engine, and the function that rolls out a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch
from transformers import AutoTokenizer

from calibadv.cluster.engine import Engine
from calibadv.cluster.rows import RolloutRow
from calibadv.cluster.shipped import shipped_factory
from calibadv.config import Config
from calibadv.methods import Method
from calibadv.rewards.outcome import Outcome, make_outcome
from calibadv.rollout.agent import Limits
from calibadv.rollout.dialogues.chat import ChatDialogue
from calibadv.rollout.dialogues.chat_writer import SEARCH_TOOL
from calibadv.rollout.dialogues.hermes import HermesDialogue
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.dialogues.template import TemplateDialogue
from calibadv.rollout.group import GroupRoller, RolledGroup, without_documents
from calibadv.rollout.protocols import GenerateFn, SearchFn
from calibadv.rollout.tally import Tally
from calibadv.rollout.tools import Tool, make_tools
from calibadv.types import Phase


def make_engine(config: Config, model_folder: str) -> Engine:
    """The configured engine over `model_folder`. vLLM takes half a minute to import: only where it is asked for."""
    rollout = config.rollout
    if rollout.engine == "torch":
        from calibadv.rollout.torch_engine import TorchEngine

        dtype = getattr(torch, rollout.torch_dtype)
        return TorchEngine.from_folder(
            model_folder, max_batch=rollout.max_concurrent, compute_dtype=dtype, tempered_logprobs=rollout.tempered
        )
    from calibadv.cluster.vllm_engine import VllmEngine
    from calibadv.cluster.vllm_process_engine import VllmProcessEngine
    from calibadv.cluster.vllm_settings import VllmSettings

    kind = VllmProcessEngine if rollout.engine_process else VllmEngine
    return kind(
        VllmSettings(
            model=model_folder,
            dtype=config.model.dtype,
            max_model_len=rollout.max_tokens,
            max_num_seqs=rollout.max_concurrent,
            gpu_memory_utilization=rollout.gpu_memory_utilization,
            kv_cache_gb=rollout.kv_cache_gb,
            tensor_parallel_size=rollout.tensor_parallel,
            seed=config.run.seed,
            tempered_logprobs=rollout.tempered,
            sleep_mode=rollout.colocated,
            arguments=rollout.vllm,
        )
    )


AnyDialogue = TagsDialogue | ChatDialogue


def make_dialogue(
    config: Config, method: Method, model_folder: str, tools: Sequence[Tool] | None = None
) -> AnyDialogue:
    """The dialogue of the method in the model's own chat template. `tools`: as configured, where they are at hand.

    ValueError, with what to do, for a template in which no rollout could be right; see `problems` of the dialogue.
    """
    dialogue = open_dialogue(config, method, model_folder, tools)
    for problem in dialogue.problems():
        if problem.fatal:
            raise ValueError(f"{model_folder}: {problem}")
    return dialogue


def open_dialogue(
    config: Config, method: Method, model_folder: str, tools: Sequence[Tool] | None = None
) -> AnyDialogue:
    """The same dialogue, whatever the chat template's problems are. ValueError if there is no tokenizer or template."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{model_folder} holds no tokenizer that can be opened: {error}") from error
    rollout = config.rollout
    prefill, system, arguments = method.prefill, rollout.system, rollout.template_arguments
    if rollout.dialogue == "tags":
        return TagsDialogue(tokenizer, prefill, rollout.template, system, rollout.date, arguments)
    kind = HermesDialogue if rollout.dialogue == "hermes" else TemplateDialogue
    schemas = (SEARCH_TOOL, *(tool.schema for tool in (make_tools(rollout.tools) if tools is None else tools)))
    return kind(tokenizer, prefill, rollout.template, system, rollout.date, arguments, schemas)


def make_limits(config: Config) -> Limits:
    """The rollout's token and turn limits."""
    rollout = config.rollout
    return Limits(
        max_turns=rollout.max_turns,
        max_prompt_tokens=rollout.max_prompt_tokens,
        max_turn_tokens=rollout.max_turn_tokens,
        max_observation_tokens=rollout.max_observation_tokens,
        max_tokens=rollout.max_tokens,
    )


def make_roller(
    config: Config,
    method: Method,
    model_folder: str,
    search: SearchFn,
    tally: Tally | None = None,
    outcome: Outcome | None = None,
    tools: Sequence[Tool] | None = None,
) -> GroupRoller:
    """Rolls out groups as configured. `outcome`, `tools`: as configured, where they have been looked up already."""
    tools = make_tools(config.rollout.tools) if tools is None else tools
    return GroupRoller(
        dialogue=make_dialogue(config, method, model_folder, tools),
        tools={tool.name: tool for tool in tools},
        search=search,
        plan=method.plan(config.rollout.samples),
        run_seed=config.run.seed,
        temperature=config.rollout.temperature,
        top_p=config.rollout.top_p,
        limits=make_limits(config),
        require_search=config.rollout.require_search,
        on_void_turn=config.rollout.on_void_turn,
        infra_retries=config.rollout.infra_retries,
        outcome=outcome or outcome_of(config, method),
        score_turns=method.score_turns() if method.score_turns else None,
        tally=tally or Tally(),
    )


def outcome_of(config: Config, method: Method) -> Outcome:
    """An engine's outcome reward, the method's own or as configured; a failing one is tried as a failing rollout is."""
    if method.reward is not None:
        return Outcome(method.reward, config.rollout.infra_retries, config.reward.length_penalty)
    judge = config.reward.judge
    if judge is not None:  # so that all engines together keep the bound, whichever of them lives
        judge = replace(judge, concurrency=judge.concurrency // config.rollout.engines)
    return make_outcome(config.reward.outcome, config.rollout.infra_retries, judge, config.reward.length_penalty)


def roll_group(
    config: Config, method: Method, model_folder: str, search_factory: Callable[[], SearchFn]
) -> Callable[[], RollGroup]:
    """What an engine's process makes its rollout function of. The user's code goes along."""
    return shipped_factory(
        partial(
            RollGroup,
            config,
            method,
            model_folder,
            search_factory,
            outcome_of(config, method),
            make_tools(config.rollout.tools),
        )
    )


class RollGroup:
    """The worker's rollout function, with a tally of what it has done."""

    def __init__(
        self,
        config: Config,
        method: Method,
        model_folder: str,
        search_factory: Callable[[], SearchFn],
        outcome: Outcome,
        tools: tuple[Tool, ...],
    ) -> None:
        self._config, self._method, self._model_folder = config, method, model_folder
        self._search_factory, self._outcome, self._tools = search_factory, outcome, tools
        self.tally = Tally()

    @cached_property
    def _roller(self) -> GroupRoller:  # at the first rollout: the search app may start while engines do
        return make_roller(
            self._config,
            self._method,
            self._model_folder,
            self._search_factory(),
            self.tally,
            self._outcome,
            self._tools,
        )

    async def __call__(self, row: RolloutRow, generate: GenerateFn, version: int) -> RolledGroup:
        if row.spares and (keep := self._method.keep):
            questions = (row.question, *row.spares)
            rolled = await self._roller.train_one_of(questions, keep, generate, step=row.step, version=version)
        else:
            roll = self._roller.train if row.phase is Phase.TRAIN else self._roller.evaluate
            rolled = await roll(row.question, generate, step=row.step, version=version)
        whole = row.phase is Phase.TRAIN and self._config.tracking.store_groups == "all"
        return rolled if row.sampled or whole else without_documents(rolled)

"""The warm start of any causal language model on questions with gold decompositions."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig

from calibadv.cluster.factories import make_dialogue, make_limits
from calibadv.cluster.model_folder import model_folder
from calibadv.cluster.prompts import with_date
from calibadv.config import Config
from calibadv.data.corpus import load_corpus
from calibadv.data.questions import load_questions
from calibadv.data.row_report import say_rows
from calibadv.data.tally import Tally
from calibadv.files import whole_folder
from calibadv.rllib.checkpoint_names import as_in_checkpoint
from calibadv.rllib.model_folder import write_model_folder
from calibadv.rllib.policy import load_causal_lm
from calibadv.rollout.protocols import SearchFn
from calibadv.search.here import search_here
from calibadv.supervised.demonstrations import Demonstration, Outcome, demonstrations
from calibadv.supervised.training import GoldRecipe, History, train
from calibadv.types import Question

log = logging.getLogger(__name__)

RECORD = "warm_start.json"
_AS_THEY_WERE = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
)


@dataclass(frozen=True, slots=True)
class GoldRequest:
    """What is to be made of what."""

    model: str  # a folder, a hub name or "pocket"
    questions: Path
    corpus: Path
    out: Path
    config: Config  # search, prompt template and limits of the rollouts that come later
    recipe: GoldRecipe
    held_out: Path | None = None
    keep_unsupported: bool = False
    save_dtype: str | None = None  # None: the source's
    limit: int | None = None  # the first questions only: a quick look

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit {self.limit}; expected at least 1")


def warm_start_gold(request: GoldRequest) -> History:
    """The history of a whole warm start; writes model, tokenizer and `warm_start.json` into `request.out`.

    ValueError, before anything is trained, where `out` is taken, a file or the model cannot be used, no question gives
    a demonstration, or a held-out question is trained on.
    """
    started = time.perf_counter()
    if request.out.exists() and (not request.out.is_dir() or any(request.out.iterdir())):
        raise ValueError(f"--out {request.out} is there already: remove it, or write elsewhere")
    transformers.utils.logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(request.recipe.threads)
    source = model_folder(request.model, request.config)
    request = replace(request, config=with_date(request.config, request.config.method.made, source))
    shown, held_out, counts = asyncio.run(_demonstrations(request, source))
    model = load_causal_lm(str(source))
    if request.config.learner.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    log.info("%s: %.1f M parameters, %d dialogues", source.name, model.num_parameters() / 1e6, len(shown))
    history = train(model, shown, request.recipe, held_out)
    dtype = _dtype(source, request.save_dtype)
    with whole_folder(request.out) as folder:
        write_model(model, source, folder, dtype)
        record = _record(request, shown, counts, history, dtype, time.perf_counter() - started)
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    log.info("wrote %s after %.0f s; last loss %.4f nats", request.out, record["seconds"], history.losses[-1])
    return history


def write_model(model: Any, source: Path, folder: Path, dtype: torch.dtype) -> None:
    """Writes the model in `dtype` as safetensors; tokenizer and generation settings are the files of `source`."""
    weights = as_in_checkpoint(model, model.named_parameters())
    write_model_folder(weights, model, str(source), folder, dtype)
    for pattern in (*_AS_THEY_WERE, "generation_config.json"):
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)


async def _demonstrations(
    request: GoldRequest, source: Path
) -> tuple[list[Demonstration], list[Demonstration], Counter[Outcome]]:
    questions = _questions(request, request.questions)
    held_out = _questions(request, request.held_out) if request.held_out else []
    both = {question.id for question in questions} & {question.id for question in held_out}
    if both:
        raise ValueError(
            f"{len(both)} questions of --held-out {request.held_out} are trained on too, e.g. {min(both)!r}: "
            "prepare_data.py questions --hold-out N makes two files that share none"
        )
    config = request.config
    documents = () if config.search.elsewhere else load_corpus(request.corpus)
    search = search_here(config.search, documents, config.run.cache)
    shown, counts = await _shown(request, questions, source, search)
    if not shown:
        raise ValueError(
            f"{request.questions} gives no demonstration: {_counted(counts)}. Use questions with gold sub-queries and "
            "the corpus that belongs to them; raise --search.top_k or the --rollout.max_… limits, or --keep-unsupported"
        )
    log.info("%s: %s", request.questions, _counted(counts))
    tested, held_out_counts = await _shown(request, held_out, source, search)
    if held_out:
        log.info("%s: %s", request.held_out, _counted(held_out_counts))
    return shown, tested, counts


def _questions(request: GoldRequest, path: Path) -> list[Question]:
    tokens, tally = request.config.reward.tokens, Tally()
    questions = load_questions(path, tokens=tokens, tally=tally)
    say_rows("questions", path, tally, tokens)
    return questions[: request.limit]


async def _shown(
    request: GoldRequest, questions: Sequence[Question], source: Path, search: SearchFn
) -> tuple[list[Demonstration], Counter[Outcome]]:
    method = request.config.method.made
    dialogue, limits = make_dialogue(request.config, method, str(source)), make_limits(request.config)
    if dialogue.tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {source} has no eos_token: name it in its tokenizer_config.json")
    return await demonstrations(questions, dialogue, search, limits, keep_unsupported=request.keep_unsupported)


def _counted(counts: Counter[Outcome]) -> str:
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome)


def _dtype(source: Path, wanted: str | None) -> torch.dtype:
    dtype = getattr(torch, wanted) if wanted else AutoConfig.from_pretrained(source).dtype
    return dtype or torch.float32


def _record(
    request: GoldRequest,
    shown: Sequence[Demonstration],
    counts: Counter[Outcome],
    history: History,
    dtype: torch.dtype,
    seconds: float,
) -> dict[str, Any]:
    ids = "\n".join(sorted(demonstration.question_id for demonstration in shown))
    return {
        "model": request.model,
        "questions": request.questions.name,
        "questions_digest": hashlib.blake2b(ids.encode(), digest_size=16).hexdigest(),  # of the ids trained on, sorted
        "corpus": request.corpus.name,
        "recipe": asdict(request.recipe),
        "search": request.config.search.model_dump(mode="json"),
        "rollout": request.config.rollout.model_dump(mode="json"),
        "keep_unsupported": request.keep_unsupported,
        "dtype": str(dtype).removeprefix("torch."),
        "counts": {str(outcome): counts[outcome] for outcome in Outcome},
        "losses": [round(loss, 5) for loss in history.losses],
        "held_out_losses": [round(loss, 5) for loss in history.held_out],
        "tokens": history.tokens,
        "action_tokens": history.action_tokens,
        "tokens_per_s": round(history.tokens / history.seconds, 1),
        "seconds": round(seconds, 1),
    }

"""From names in the configuration to checked files on this machine: questions, corpus and model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from calibadv.cluster.gpus import cards_here, check_gpus
from calibadv.cluster.job import check_job, in_job
from calibadv.cluster.model_folder import model_folder
from calibadv.cluster.places import check_places
from calibadv.cluster.prompts import check_prompts
from calibadv.cluster.servers import check_routes
from calibadv.cluster.vllm_settings import check_model_folder
from calibadv.config import POCKET, Config
from calibadv.config.risks import risks
from calibadv.data.corpus import load_corpus
from calibadv.data.digests import corpus_digest, model_digest, questions_digest
from calibadv.data.gold_passages import training_questions, without_gold_texts
from calibadv.data.overlap import shared_questions
from calibadv.data.questions import load_questions, scored_by
from calibadv.data.row_report import say_rows
from calibadv.data.tally import Tally
from calibadv.methods import Method
from calibadv.model_source import to_fetch
from calibadv.pocket import data_file
from calibadv.rllib.checkpoint_names import check_cpu_engine, check_names
from calibadv.rllib.head import check_architecture
from calibadv.rollout.joined_cache import check_folder
from calibadv.search.models import check_models
from calibadv.tracking.data_sets import DataSet
from calibadv.tracking.run_folder import check_free
from calibadv.training.user_functions import code_digests, try_user_code
from calibadv.types import Document, Question, TokenUnit

if TYPE_CHECKING:  # Ray Data: a second that a dry run need not wait
    from calibadv.rllib.stream import Start

logger = logging.getLogger(__name__)

DATA = ("train", "test", "corpus")  # the files that a run's configuration names


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is made from: its local files, what was read of them, and the checkpoint that it goes on from, if any.

    The corpus is not kept: it may be larger than memory, and the search app's replicas read it where they live.
    """

    train: Path
    test: Path
    corpus: Path
    model: Path  # folder
    method: Method
    train_questions: Sequence[Question]  # with the gold that the method needs
    test_questions: Sequence[Question]  # those that are asked
    digests: Mapping[str, str]  # of "train", "test", "corpus", "model", whole as the files have them, and of user code
    counts: Mapping[str, int]  # questions or documents of "train", "test", "corpus", whole as the files have them
    start: Start | None = None

    @property
    def data_sets(self) -> dict[str, DataSet]:
        """Training questions, test questions and corpus for the run's record, by what the run does with them."""
        files = {"train": self.train, "test": self.test, "corpus": self.corpus}
        return {
            name: DataSet(file.name, self.digests[name], name, self.counts[name], str(file))
            for name, file in files.items()
            if name in self.digests and name in self.counts
        }


@dataclass(frozen=True, slots=True)
class Readers:
    """How the files of a run are read."""

    questions: Callable[..., list[Question]] = load_questions
    corpus: Callable[..., Sequence[Document]] = load_corpus


def resolve_inputs(config: Config, readers: Readers = Readers()) -> Inputs:
    """The run's files, each read once. Writes the pocket world to the cache, fetches a hub model.

    ValueError for bad input.
    """
    _check_settings(config)
    model = model_folder(config.model.path, config)
    inputs = _checked(config, config.run.cache, model, readers)
    of_files = {"corpus": corpus_digest(inputs.corpus), "model": model_digest(model)}
    return replace(inputs, digests={**inputs.digests, **of_files})


def corpus_file(config: Config) -> Path:
    """The run's corpus. Writes the pocket world to the cache."""
    return data_file(config.data.corpus, "corpus", config.run.cache)


def check_inputs(config: Config, *, resume: bool = False) -> Inputs:
    """What a run would be made from, its files already gone. Starts nothing, fetches no hub model.

    ValueError for what a run would be refused for.
    """
    _check_settings(config)
    check_free(config.run.folder / config.run_name, overwrite=config.run.overwrite, resume=resume)
    name = config.model.path
    model = None if to_fetch(name) else model_folder(name, config)
    with TemporaryDirectory() as cache:
        inputs = _checked(config, Path(cache), model, Readers())
    if model is None:
        logger.info("the model %s is not in the hub's cache: a run fetches it first, and then sees its tokenizer", name)
    return inputs


def _check_settings(config: Config) -> None:
    check_places(config, os.environ)
    check_routes(config)
    check_job(config)
    _check_data_of_job(config)
    check_models(config.search)


def _checked(config: Config, cache: Path, model: Path | None, readers: Readers) -> Inputs:
    check_gpus(config, model, cards_here())
    files = {name: data_file(getattr(config.data, name), name, cache) for name in DATA}
    inputs = _read(config, files, model, readers)
    _check_folder(config)
    _say_risks(config)
    return inputs


def _read(config: Config, files: Mapping[str, Path], model: Path | None, readers: Readers) -> Inputs:
    """What the files hold. ValueError where they and the model (None: not here yet) do not make a run."""
    tokens, tallies = config.reward.tokens, {name: Tally() for name in DATA}
    train = readers.questions(files["train"], tokens=tokens, tally=tallies["train"])
    test = readers.questions(files["test"], tokens=tokens, tally=tallies["test"])
    corpus = readers.corpus(files["corpus"], tally=tallies["corpus"])
    method = config.run_method()
    trained = training_questions(train, corpus, method.gold, file=files["train"])
    _check_overlap(train, test)
    try_user_code(config, method, train[0])
    if model is not None:
        check_architecture(str(model))
        if config.rollout.engine == "torch":
            check_folder(model)
        if config.rollout.engine == "vllm":
            check_model_folder(str(model))
            check_names(str(model))
            if config.cluster.gpus_per_engine == 0:
                check_cpu_engine(str(model))
        check_prompts(config, method, model, [*train, *test])
    if len(train) < config.data.questions_per_step:
        raise ValueError(
            f"{files['train']} has {len(train)} questions, fewer than data.questions_per_step = "
            f"{config.data.questions_per_step}: a step would ask one twice; lower it"
        )
    for name, tally in tallies.items():  # after all checks: what is refused is said in one line
        say_rows(name, files[name], tally, tokens)
    return Inputs(
        train=files["train"],
        test=files["test"],
        corpus=files["corpus"],
        model=model or Path(config.model.path),
        method=method,
        train_questions=trained,
        test_questions=without_gold_texts(test[: config.data.test_questions]),
        digests={
            name: questions_digest(scored_by(TokenUnit.WORDS, questions))  # whatever the run scores by
            for name, questions in (("train", train), ("test", test))
        }
        | code_digests(config),
        counts={"train": len(train), "test": len(test), "corpus": len(corpus)},
    )


def _check_data_of_job(config: Config) -> None:
    """ValueError where a job names files by paths from a checkout: its working directory is sent without data."""
    if not in_job():
        return
    given = {f"data.{name}": getattr(config.data, name) for name in DATA}
    given |= {"search.faiss_index": config.search.faiss_index}
    for key, path in given.items():
        if path not in ("", POCKET) and not Path(path).is_absolute() and not Path(path).exists():
            raise ValueError(
                f"{key} = {path!r} is not in the job's working directory, which is sent without data: give the file's "
                f"absolute path in a folder that every node sees, e.g. --{key} /mnt/calibadv/{path}"
            )


def _check_folder(config: Config) -> None:
    """Warns where what the run writes would go away with the working directory that Ray unpacked for a job."""
    if not config.run.folder.is_absolute() and "working_dir_files" in Path.cwd().parts:
        logger.warning(
            "run.folder = %r lies in the job's own copy of the working directory, which Ray removes some time after "
            "the job: give a folder that stays, e.g. --run.folder /mnt/calibadv/runs",
            str(config.run.folder),
        )


def _say_risks(config: Config) -> None:
    """Warns of what is known to go wrong with these settings."""
    for risk in risks(config):
        logger.warning("%s; %s", risk.said, risk.remedy)


def _check_overlap(train: list[Question], test: list[Question]) -> None:
    shared = shared_questions(*(((question.id, question.text) for question in asked) for asked in (train, test)))
    if shared:
        logger.warning("%d questions are in both train and test, e.g. %r", len(shared), shared[0].question)

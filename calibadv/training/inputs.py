"""From names in the configuration to checked files on this machine: questions, corpus and model."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from calibadv.cluster.job import check_job, in_job
from calibadv.cluster.model_folder import model_folder
from calibadv.cluster.places import check_places
from calibadv.cluster.prompts import check_prompts
from calibadv.cluster.servers import check_routes
from calibadv.cluster.vllm_settings import check_model_folder
from calibadv.config import POCKET, Config
from calibadv.data.corpus import load_corpus
from calibadv.data.gold_passages import training_questions, without_gold_texts
from calibadv.data.overlap import shared_questions
from calibadv.data.questions import load_questions, scored_by
from calibadv.data.row_report import say_rows
from calibadv.data.tally import Tally
from calibadv.methods import Method, make_method
from calibadv.model_source import to_fetch
from calibadv.pocket import write_pocket_world
from calibadv.rllib.checkpoint_names import check_cpu_engine, check_names
from calibadv.rllib.head import check_architecture
from calibadv.rllib.stream import Start
from calibadv.rollout.torch_engine import check_folder
from calibadv.tracking.run_folder import check_free
from calibadv.types import Question

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is made from: its files, all local, and the checkpoint that it goes on from, if it does."""

    train: Path
    test: Path
    corpus: Path
    model: Path
    start: Start | None = None


def read_questions(config: Config, inputs: Inputs, method: Method) -> tuple[list[Question], list[Question]]:
    """The training questions, with the gold that the method needs, and the test questions that are asked."""
    tokens = config.reward.tokens
    train = scored_by(tokens, training_questions(inputs.train, inputs.corpus, method.gold))
    test = load_questions(inputs.test, tokens=tokens)[: config.data.test_questions]
    return train, without_gold_texts(test)


def resolve_inputs(config: Config) -> Inputs:
    """The run's files. Writes the pocket world to the cache, fetches a hub model; raises ValueError for bad input."""
    check_places(config, os.environ)
    check_routes(config)
    check_job(config)
    _check_data_of_job(config)
    inputs = _inputs(config, config.run.cache, model_folder(config.model.path))
    _check_files(config, inputs, inputs.model)
    _check_folder(config)
    return inputs


def check_inputs(config: Config, *, resume: bool = False) -> None:
    """ValueError for what a run would be refused for. Starts nothing and keeps nothing; no hub model is fetched."""
    check_places(config, os.environ)
    check_routes(config)
    check_job(config)
    _check_data_of_job(config)
    check_free(config.run.folder / config.run_name, overwrite=config.run.overwrite, resume=resume)
    name = config.model.path
    model = None if to_fetch(name) else model_folder(name)
    with TemporaryDirectory() as cache:
        _check_files(config, _inputs(config, Path(cache), model or Path(name)), model)
    _check_folder(config)
    if model is None:
        logger.info("the model %s is not in the hub's cache: a run fetches it first, and then sees its tokenizer", name)


def _inputs(config: Config, cache: Path, model: Path) -> Inputs:
    pocket = write_pocket_world(cache / "pocket") if POCKET in _data(config) else None

    def path(name: str) -> Path:
        given: str = getattr(config.data, name)
        return getattr(pocket, name) if given == POCKET and pocket else Path(given).absolute()

    return Inputs(train=path("train"), test=path("test"), corpus=path("corpus"), model=model)


def _check_files(config: Config, inputs: Inputs, model: Path | None) -> None:
    """Raises ValueError for questions, a corpus and a model (None: not here yet) that do not make a run."""
    tokens, tallies = config.reward.tokens, {name: Tally() for name in ("train", "test", "corpus")}
    train = load_questions(inputs.train, tokens=tokens, tally=tallies["train"])
    test = load_questions(inputs.test, tokens=tokens, tally=tallies["test"])
    load_corpus(inputs.corpus, tally=tallies["corpus"])  # for what is wrong in it
    if (need := make_method(config.method.name, config.method.params).gold) is not None:
        training_questions(inputs.train, inputs.corpus, need)  # says how much is known, and refuses too little
    _check_overlap(train, test)
    if model is not None:
        check_architecture(str(model))
        if config.rollout.engine == "torch":
            check_folder(model)
        if config.rollout.engine == "vllm":
            check_model_folder(str(model))
            check_names(str(model))
            if config.cluster.gpus_per_engine == 0:
                check_cpu_engine(str(model))
        check_prompts(config, model, [*train, *test])
    if len(train) < config.data.questions_per_step:
        raise ValueError(
            f"{inputs.train} has {len(train)} questions, fewer than data.questions_per_step = "
            f"{config.data.questions_per_step}: a step would ask one twice; lower it"
        )
    for name, tally in tallies.items():  # after all checks: what is refused is said in one line
        say_rows(name, getattr(inputs, name), tally, tokens)


def _check_data_of_job(config: Config) -> None:
    """ValueError where a job names files by paths from a checkout: its working directory is sent without data."""
    if not in_job():
        return
    given = {f"data.{name}": getattr(config.data, name) for name in ("train", "test", "corpus")}
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


def _data(config: Config) -> tuple[str, ...]:
    return (config.data.train, config.data.test, config.data.corpus)


def _check_overlap(train: list[Question], test: list[Question]) -> None:
    shared = shared_questions(*(((question.id, question.text) for question in asked) for asked in (train, test)))
    if shared:
        logger.warning("%d questions are in both train and test, e.g. %r", len(shared), shared[0].question)

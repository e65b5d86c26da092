"""The user's functions, a search engine elsewhere and the judge of answers, tried before a run: each is asked once.

A tool is only looked up: nobody but a policy knows what to ask it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibadv.cluster.factories import outcome_of
from calibadv.config import Config
from calibadv.methods.keep import kept_groups
from calibadv.methods.method import Method
from calibadv.retries import in_words
from calibadv.rewards.judged_answer import JudgedAnswer, UnreadableVerdict
from calibadv.rewards.outcome import RewardFailed
from calibadv.rewards.own_turns import own_turns
from calibadv.rollout.protocols import SearchFailed
from calibadv.rollout.tools import make_tools
from calibadv.search.client import Busy
from calibadv.search.elsewhere import named, search_elsewhere
from calibadv.search.settings import SearchConfig
from calibadv.types import Document, Group, Question, Trajectory, Turn, TurnKind
from calibadv.user_code import digest, names_code

logger = logging.getLogger(__name__)


def try_user_code(config: Config, method: Method, question: Question) -> None:
    """Says what the user's functions, the engine and the judge give for `question`, a right answer and its words.

    ValueError where one cannot be loaded, fails, or gives something else than it should.
    """
    if names_code(config.reward.outcome) or method.reward is not None:
        key, value = ("method.name", config.method.name) if method.reward else ("reward.outcome", config.reward.outcome)
        try:
            scored = asyncio.run(replace(outcome_of(config, method), retries=0)(question, right_answer(question)))
        except RewardFailed as error:
            raise ValueError(f"{key} = {value!r}: {error}") from error
        parts = "".join(f", {name} {part + 0.0:g}" for name, part in scored.reward_parts.items())
        logger.info("%s %s: %g for a right answer to %s%s", key, value, scored.reward, question.id, parts)
    if config.reward.turns:
        group = Group(question, (right_answer(question),))
        try:
            (row,) = asyncio.run(own_turns(config.reward.turns, retries=0)()(group, {})).rewards
        except RewardFailed as error:
            raise ValueError(f"reward.turns = {config.reward.turns!r}: {error}") from error
        said = ", ".join(f"{value + 0.0:g}" for value in row)
        logger.info("reward.turns %s: %s for a search and a right answer to %s", config.reward.turns, said, question.id)
    if names_code(config.learner.surrogate):
        logger.info("learner.surrogate %s: %s", config.learner.surrogate, _tried_surrogate(config, method))
    if names_code(config.method.keep):
        says = "trains" if _tried_keep(config, method, question) else "is left out"
        logger.info("method.keep %s: a group of one right answer to %s %s", config.method.keep, question.id, says)
    if config.reward.judge:
        sample = f"It is {question.golden_answers[0]}, I think."
        try:
            verdict = asyncio.run(JudgedAnswer(config.reward.judge).verdict(question, sample))
        except (ConnectionError, UnreadableVerdict) as error:
            raise ValueError(f"reward.outcome = 'judge': {error}") from error
        logger.info("reward.outcome judge: %g for the answer %r to %s", verdict, sample, question.id)
    _try_search(config.search, question.text)
    for tool in make_tools(config.rollout.tools):
        about = tool.schema["function"]
        given = ", ".join(about["parameters"].get("properties", ()))
        logger.info("tool %s(%s): %s", tool.name, given, about["description"].partition("\n")[0])


def code_digests(config: Config) -> dict[str, str]:
    """A digest of each file of the user's that a setting names, by the setting."""
    named = {
        "reward.outcome": config.reward.outcome,
        "reward.turns": config.reward.turns,
        "search.tool": config.search.tool,
        "method.name": config.method.name,
        "method.keep": config.method.keep,
        "learner.surrogate": config.learner.surrogate,
        **{f"rollout.tools.{tool.called}": tool.function for tool in config.rollout.tools if tool.function},
    }
    return {key: digest(value, key) for key, value in named.items() if names_code(value)}


def right_answer(question: Question) -> Trajectory:
    """A rollout of one search and the first golden answer, without tokens."""
    ids, logprobs, answer = np.zeros(0, np.int64), np.zeros(0, np.float32), question.golden_answers[0]
    texts = (
        (TurnKind.SEARCH, f"<think>I look it up.</think><search>{question.text}</search>"),
        (TurnKind.ANSWER, f"<think>It says so.</think><answer>{answer}</answer>"),
    )
    turns = tuple(
        Turn(kind, ids, logprobs, ids, text, question.text if kind is TurnKind.SEARCH else None) for kind, text in texts
    )
    return Trajectory(ids, turns, answer, answer_reward=1.0, format_reward=1.0, reward=1.0)


def _try_search(search: SearchConfig, query: str) -> None:
    """Says what an engine that is not the run's own finds. One that is down is a warning: it may come up.

    Not asked where a ledger has begun: it may know the answer, and it alone knows what may be asked.
    """
    if not search.elsewhere or (search.ledger and Path(search.ledger).exists()):
        return
    if search.ledger_mode == "replay":
        return
    key = named(search)

    async def asked() -> tuple[Document, ...]:
        ask = search_elsewhere(search.but(patience_s=0.0))()  # a client belongs to the loop that it is made in
        return await ask(query)

    try:
        found = asyncio.run(asked())
    except SearchFailed as error:
        if search.url and isinstance(error.__cause__, RuntimeError | Busy):
            logger.warning("%s: %s; the run will ask again", key, error.__cause__)
            return
        raise ValueError(f"{key}: {error.__cause__ or error}") from error
    titles = ", ".join(repr(document.title) for document in found[:3])
    logger.info("%s: %d documents for %r: %s", key, len(found), query, titles)


def _tried_keep(config: Config, method: Method, question: Question) -> bool:
    """What the user's choice of groups says of one with a right answer alone."""
    try:
        return bool(kept_groups([Group(question, (right_answer(question),))], method))
    except Exception as error:
        raise ValueError(f"method.keep = {config.method.keep!r}: {in_words(error)}") from error


def _tried_surrogate(config: Config, method: Method) -> str:
    """What the user's surrogate gives for two tokens of advantages 1 and -1 at the old policy, in words."""
    import torch  # the command line is read without it

    from calibadv.surrogates import PolicyTokens, Surrogate

    logprobs_N, index_N = torch.full((2,), -1.0, requires_grad=True), torch.zeros(2, dtype=torch.int64)
    tokens = PolicyTokens(logprobs_N, torch.full((2,), -1.0), torch.tensor([1.0, -1.0]), index_N, index_N)
    key = f"learner.surrogate = {config.learner.surrogate!r}"
    try:
        given = method.surrogate(tokens) if method.surrogate else None
    except Exception as error:
        raise ValueError(f"{key}: {in_words(error)}") from error
    if not isinstance(given, Surrogate) or given.objective_N.shape != (2,) or not given.objective_N.requires_grad:
        raise ValueError(
            f"{key}: it gave {given!r}, expected a calibadv.surrogates.Surrogate with an objective a token"
        )
    torch.autograd.backward(given.objective_N.sum())
    up, down = (logprobs_N.grad if logprobs_N.grad is not None else torch.zeros(2)).tolist()
    return f"gradients {up:g} and {down:g} at advantages 1 and -1"

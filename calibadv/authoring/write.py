"""Questions of a corpus: passages are drawn, a model writes a question, search and model check it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from calibadv.authoring.budget import PaidJudge, Spent
from calibadv.authoring.checks import Fate, flaw, is_answer, ranks_of
from calibadv.authoring.passages import drawn, shown
from calibadv.authoring.prompts import VERSION, Draft, Unreadable, answer_prompt, read_answer, read_draft, write_prompt
from calibadv.authoring.report import Report
from calibadv.data.gold_dialogues import HOP_ANSWERS
from calibadv.data.overlap import normalised_question
from calibadv.data.question_formats import content_key
from calibadv.data.schema import QuestionRow
from calibadv.rewards.verdicts import answer_prompt as verdict_prompt
from calibadv.rewards.verdicts import answer_verdict
from calibadv.rollout.protocols import SearchFn
from calibadv.types import Document, Question, TokenUnit

log = logging.getLogger("workflows.prepare_data")

_SAID_EVERY = 10  # kept questions


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many questions of what kind. ValueError for what cannot be."""

    questions: int
    hops: tuple[int, ...] = (1, 2, 3)
    name: str = "written"  # the data set, the first part of every id
    seed: int = 0
    at_once: int = 8  # questions under way
    tokens: TokenUnit = TokenUnit.WORDS

    def __post_init__(self) -> None:
        if self.questions < 1:
            raise ValueError(f"--questions {self.questions}; expected at least 1")
        if not self.hops or not set(self.hops) <= {1, 2, 3}:
            raise ValueError(f"--hops {','.join(map(str, self.hops))}; expected some of 1,2,3")


async def written_questions(
    documents: Sequence[Document], search: SearchFn, judge: PaidJudge, model: str, wanted: Wanted
) -> tuple[list[QuestionRow], Report]:
    """(the rows that were kept, what came of all). The same replies give the same rows, however many are under way.

    Fewer than wanted where the passages or the budget end; `Report.stopped` says it. Raises `NoReply`, and
    `SearchFailed` where the search does not answer.
    """
    author, report = _Author(search, judge, model, wanted), Report()
    rows, seen = list[QuestionRow](), set[str]()
    passages = drawn(documents, wanted.hops, wanted.seed)
    under_way: deque[asyncio.Task[_Made]] = deque()
    try:
        while True:
            # Never more than are still wanted: each may be kept, and is paid for.
            while len(under_way) < min(wanted.at_once, wanted.questions - len(rows)):
                if (next_one := next(passages, None)) is None:
                    break
                under_way.append(asyncio.create_task(author.question(*next_one)))
            if not under_way:
                if len(rows) < wanted.questions:
                    report.stopped = report.stopped or "every passage was asked about"
                return rows, report
            try:
                made = await under_way.popleft()
            except Spent as spent:
                passages, report.stopped = iter(()), str(spent)  # what is under way ends, and what it took is kept
                continue
            fate = made.fate
            report.ranks += made.ranks
            if made.row is not None and (words := normalised_question(made.row.question)) not in seen:
                seen.add(words)
                rows.append(made.row)
                report.hops[len(made.row.gold_doc_ids)] += 1
                _say(rows, wanted, judge)
            elif made.row is not None:
                fate = Fate.REPEATED
            report.fates[fate] += 1
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Made:
    fate: Fate
    ranks: tuple[int | None, ...] = ()
    row: QuestionRow | None = None  # of a kept one


@dataclass(frozen=True, slots=True)
class _Author:
    search: SearchFn
    judge: PaidJudge
    model: str
    wanted: Wanted

    async def question(self, document: Document, hops: int) -> _Made:
        """One question, from its passages to its fate; the cheapest checks come first."""
        passages = await shown(document, hops, self.search)
        if len(passages) < hops:
            return _Made(Fate.DECLINED)
        reply = await self.judge.ask(write_prompt(passages, hops))
        if reply is None:
            return _Made(Fate.FAILED)
        try:
            draft = read_draft(reply)
            if draft is None:
                return _Made(Fate.DECLINED)
            if wrong := flaw(draft, passages, hops, self.wanted.tokens):
                return _Made(wrong)
            gold = [passages[step.passage - 1] for step in draft.steps]
            ranks = await ranks_of(draft, gold, self.search)
            if None in ranks:
                return _Made(Fate.UNREACHABLE, ranks)
            fate = await self._judged(draft, gold)
        except Unreadable:
            return _Made(Fate.UNREADABLE)
        return _Made(fate, ranks, self._row(draft, gold, ranks) if fate is Fate.KEPT else None)

    async def _judged(self, draft: Draft, gold: Sequence[Document]) -> Fate:
        read = await self._answers(draft, gold)
        if read is None or not read:
            return Fate.FAILED if read is None else Fate.UNANSWERED
        known = await self._answers(draft, ())
        if known is None or known:
            return Fate.FAILED if known is None else Fate.KNOWN
        return Fate.KEPT

    async def _answers(self, draft: Draft, passages: Sequence[Document]) -> bool | None:
        """Whether the model answers rightly with these passages; None where a call failed."""
        reply = await self.judge.ask(answer_prompt(draft.question, passages))
        if reply is None:
            return None
        given = read_answer(reply)
        if given is None or is_answer(given, draft.answer, self.wanted.tokens):
            return given is not None
        verdict = await self.judge.ask(verdict_prompt(Question("", draft.question, (draft.answer,)), given))
        if verdict is None:
            return None
        if (right := answer_verdict(verdict)) is None:
            raise Unreadable(verdict)
        return right == 1.0

    def _row(self, draft: Draft, gold: Sequence[Document], ranks: Sequence[int | None]) -> QuestionRow:
        return QuestionRow(
            id=f"{self.wanted.name}/{content_key(draft.question, (draft.answer,))}",
            question=draft.question,
            golden_answers=(draft.answer,),
            hops=len(draft.steps),
            type="bridge" if len(draft.steps) > 1 else "single",
            gold_doc_ids=tuple(document.id for document in gold),
            gold_titles=tuple(dict.fromkeys(document.title for document in gold)),
            gold_passages=tuple(f"{' '.join(document.title.split())}\n{document.text}" for document in gold),
            sub_queries=tuple(step.question for step in draft.steps),
            metadata={
                HOP_ANSWERS: json.dumps([step.answer for step in draft.steps]),
                "model": self.model,
                "prompt": VERSION,
                "ranks": ", ".join(map(str, ranks)),
                "checks": "answer in its passage, passages found, answered with them, not answered without",
            },
        )


def _say(rows: Sequence[QuestionRow], wanted: Wanted, judge: PaidJudge) -> None:
    if len(rows) % _SAID_EVERY == 0:
        log.info("%d of %d questions, %d calls, cost %.4g", len(rows), wanted.questions, judge.calls, judge.cost)

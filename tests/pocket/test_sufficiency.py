"""In the pocket world searching is sufficient (a scripted agent, the real search) and necessary (the policy alone)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from calibadv.data.corpus import load_corpus
from calibadv.data.questions import load_questions
from calibadv.pocket import policy_path, write_pocket_world
from calibadv.pocket.tokenizer import POCKET_TEMPLATE
from calibadv.pocket.world import TEMPLATES
from calibadv.rewards.answer import best_over_golden
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.search.build import build_pipeline
from calibadv.search.pipeline import SearchPipeline
from calibadv.search.settings import SearchConfig
from calibadv.types import Document, Question

PATTERNS = [
    re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[\\w ]+?)", re.escape(text).replace(r"\{name\}", r"[\w ]+?")))
    for text in TEMPLATES.values()
]


@pytest.fixture(scope="module")
def folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept between runs where pytest keeps anything, as the corpus takes MiniLM half a minute."""
    kept = getattr(pytestconfig, "cache", None)
    return tmp_path_factory.mktemp("pocket-world") if kept is None else Path(kept.mkdir("pocket-world"))


@pytest.fixture(scope="module")
def questions(folder: Path) -> list[Question]:
    return load_questions(write_pocket_world(folder).test, name="pocket")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> SearchPipeline:
    return build_pipeline(load_corpus(write_pocket_world(folder).corpus), SearchConfig(), folder / "embeddings")


def scripted_answer(question: Question, pipeline: SearchPipeline) -> str | None:
    """What a reader of the templates answers, who is told the chain of relations and only the first name(s)."""
    read: list[str] = []
    subject = ""
    for query in question.sub_queries:
        relation, _, gold_subject = query.partition(" of ")
        told = not read or question.metadata["type"] != "bridge"
        subject = gold_subject if told else read[-1]
        (documents,) = pipeline.search_batch([f"{relation} of {subject}"])
        value = fact(subject, relation, documents)
        if value is None:
            return None
        read.append(value)
    if question.metadata["type"] == "comparison":
        names = [query.partition(" of ")[2] for query in question.sub_queries]
        return min(zip(read, names, strict=True))[1]
    if question.metadata["type"] == "yes_no":
        return "yes" if read[0] == read[1] else "no"
    return read[-1]


def fact(subject: str, relation: str, documents: tuple[Document, ...]) -> str | None:
    """`relation` of `subject` as the documents state it."""
    for document in documents:
        matches = [m for p in PATTERNS if document.title == subject and (m := p.fullmatch(document.text))]
        for match in matches:
            if relation in match.groupdict():
                return match[relation]
    return None


def test_a_scripted_agent_that_searches_answers_nearly_everything(
    questions: list[Question], pipeline: SearchPipeline
) -> None:
    scores = [best_over_golden(scripted_answer(q, pipeline), q.golden_answers) for q in questions]
    assert sum(scores) / len(scores) >= 0.95


def test_the_gold_document_is_among_the_three_found(questions: list[Question], pipeline: SearchPipeline) -> None:
    searches = [pair for q in questions for pair in zip(q.sub_queries, q.gold_doc_ids, strict=True)]
    found = [doc_id in {d.id for d in pipeline.search_batch([query])[0]} for query, doc_id in searches]
    assert sum(found) / len(found) >= 0.97


def test_the_policy_alone_is_hardly_better_than_the_most_frequent_answer(
    folder: Path, questions: list[Question]
) -> None:
    train = load_questions(write_pocket_world(folder).train, name="pocket")
    majority = Counter(q.golden_answers[0] for q in train).most_common(1)[0][0]
    constant = sum(best_over_golden(majority, q.golden_answers) for q in questions) / len(questions)
    answers = unseen_answers([q.text for q in questions])
    closed_book = sum(best_over_golden(a, q.golden_answers) for a, q in zip(answers, questions, strict=True))
    assert closed_book / len(questions) < constant + 0.10


@torch.no_grad()
def unseen_answers(texts: list[str]) -> list[str]:
    """Greedy answers of the shipped policy, made to answer before any search."""
    tokenizer = AutoTokenizer.from_pretrained(policy_path())
    policy = AutoModelForCausalLM.from_pretrained(policy_path(), dtype=torch.float32).eval()
    dialogue = TagsDialogue(tokenizer, prefill="<think> done</think>\n<answer>", template=POCKET_TEMPLATE)
    prompts = [dialogue.prompt_ids(text).tolist() for text in texts]
    width = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    written = policy.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False)[:, width:]
    return [text.partition("<")[0].strip() for text in tokenizer.batch_decode(written)]

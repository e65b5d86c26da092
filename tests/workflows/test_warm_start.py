"""`warm_start.py gold`: demonstrations are rollouts of the gold turns, only actions train, and the folder opens."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from calibadv.cluster.factories import AnyDialogue
from calibadv.pocket import policy_path
from calibadv.pocket.tokenizer import POCKET_TEMPLATE
from calibadv.rewards.format import format_reward
from calibadv.rllib.policy import load_causal_lm
from calibadv.rollout.agent import Limits
from calibadv.rollout.dialogues.chat import ChatDialogue
from calibadv.rollout.dialogues.hermes import HermesDialogue
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.dialogues.template import TemplateDialogue
from calibadv.rollout.protocols import Generation, StopReason
from calibadv.supervised.demonstrations import Demonstration, Outcome, demonstrations
from calibadv.supervised.training import GoldRecipe, batches, mean_loss, step_loss, train
from calibadv.tags import PRE_THINK, parse_action
from calibadv.types import Document, Question, Turn
from tests.build import jsonl
from tests.rollout.chat_templates import LLAMA3, QWEN3, QWEN3_THINKING, QWEN25, with_template
from tests.rollout.scripted import TOKENIZER, Library
from workflows import warm_start

DIALOGUE = TagsDialogue(TOKENIZER, template=POCKET_TEMPLATE)
LIMITS = Limits(max_turns=3, max_prompt_tokens=256, max_turn_tokens=512, max_observation_tokens=160, max_tokens=2000)
ADA = Document("ada", "Ada", "director of Lost Valley is Ada.")
OSLO = Document("oslo", "Oslo", "home town of Ada is Oslo.")
SEARCH = Library((ADA, OSLO))
QUESTION = Question(
    "m/1",
    "home town of the director of Lost Valley?",
    ("Oslo",),
    sub_queries=("Lost Valley >> director", "Ada >> home town"),
    metadata={"hop_answers": '["Ada", "Oslo"]'},
)
TURNS = (
    "To answer this, I first need to know: Lost Valley director</think>\n<search> Lost Valley director </search>",
    "The documents say it is Ada. Now I need: Ada home town</think>\n<search> Ada home town </search>",
    "The documents say it is Oslo.</think>\n<answer> Oslo </answer>",
)


def shown(
    *questions: Question, search: Library = SEARCH, limits: Limits = LIMITS, **how: Any
) -> tuple[list[Demonstration], Counter[Outcome]]:
    return asyncio.run(demonstrations(questions, DIALOGUE, search, limits, **how))


def questions(number: int) -> list[Question]:
    """Of different lengths."""
    return [replace(QUESTION, id=f"m/{i}", text=" ".join(["Oslo"] * (i + 1)) + "?") for i in range(number)]


def generation(dialogue: AnyDialogue, text: str) -> Generation:
    ids = np.asarray(dialogue.tokenizer.encode(text, add_special_tokens=False))
    return Generation(ids, np.zeros(len(ids), np.float32), StopReason.TAG)


@pytest.fixture
def model() -> PreTrainedModel:
    return load_causal_lm(str(policy_path()))


@pytest.mark.parametrize("prefill", ["", PRE_THINK])
def test_ids_are_the_pieces_of_a_rollout_and_only_actions_train(prefill: str) -> None:
    (demonstration,), _ = shown(QUESTION)
    row = demonstration.prefilled if prefill else demonstration.written
    dialogue = replace(DIALOGUE, prefill=prefill)
    observation = dialogue.observation_ids((ADA, OSLO), LIMITS.max_observation_tokens).tolist()
    ids, actions = dialogue.prompt_ids(QUESTION.text).tolist(), []
    actions = [False] * len(ids)
    for text, seen in zip(TURNS, (observation, observation, [TOKENIZER.eos_token_id]), strict=True):
        action = TOKENIZER.encode(text if prefill else f"<think>{text}", add_special_tokens=False)
        ids += action + seen
        actions += [True] * len(action) + [len(seen) == 1] * len(seen)  # the end is the policy's to write
    assert row.ids_T.tolist() == ids
    assert row.action_T.tolist() == actions


CALL = '<tool_call>\n{{"name": "search", "arguments": {{"query": "{}"}}}}\n</tool_call><|im_end|>'
SEEN = (
    "\n<|im_start|>user\n<tool_response>\nDoc 1(Title: Ada) director of Lost Valley is Ada.\n"
    "Doc 2(Title: Oslo) home town of Ada is Oslo.\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
)
THOUGHTS = (
    "To answer this, I first need to know: Lost Valley director",
    "The documents say it is Ada. Now I need: Ada home town",
    "The documents say it is Oslo.",
)


@pytest.mark.parametrize("kind", [HermesDialogue, TemplateDialogue])
@pytest.mark.parametrize(
    ("template", "arguments", "opens"),
    [
        (QWEN3, {}, ("", "<think>")),
        (QWEN25, {}, ("", "<think>")),
        (QWEN3_THINKING, {}, ("<think>\n", "<think>\n")),
        (QWEN3, {"enable_thinking": False}, ("<think>\n\n</think>\n\n",) * 2),
    ],
    ids=["3", "2.5", "3 thinking", "3 without"],
)
def test_a_dialogue_of_calls_is_written_as_the_chat_template_writes_it(
    kind: type[ChatDialogue], template: str, arguments: dict[str, bool], opens: tuple[str, str]
) -> None:
    dialogue = kind(with_template(template), template="Q {question}", arguments=arguments)
    limits = Limits(3, 4000, 512, 512, 9000)  # of bytes
    (demonstration,), _ = asyncio.run(demonstrations([QUESTION], dialogue, SEARCH, limits))
    for row, opening in zip((demonstration.written, demonstration.prefilled), opens, strict=True):
        thoughts = ["" if arguments else f"<think>\n{thought}\n</think>\n\n" for thought in THOUGHTS]
        gap = "\n" if (kind, template) == (TemplateDialogue, QWEN25) else ""  # it writes one behind any content
        actions = [gap + CALL.format("Lost Valley director"), gap + CALL.format("Ada home town")]
        actions += ["<answer> Oslo </answer>"]
        turns = [thought.removeprefix(opening) + action for thought, action in zip(thoughts, actions, strict=True)]
        turns[-1] += "<|im_end|>"  # the end of sequence, which this policy is to write too
        assert dialogue.text(row.ids_T).rpartition(f"Q {QUESTION.text}")[2] == (
            f"<|im_end|>\n<|im_start|>assistant\n{opening}" + f"{SEEN}{opening}".join(turns)
        )
        assert dialogue.text(row.ids_T[row.action_T]) == "".join(turns)


def test_a_model_that_writes_no_thoughts_is_shown_none() -> None:
    dialogue = TemplateDialogue(with_template(LLAMA3), template="Q {question}", date="2026-11-28")
    (demonstration,), _ = asyncio.run(demonstrations([QUESTION], dialogue, SEARCH, Limits(3, 4000, 512, 512, 9000)))
    assert demonstration.written is demonstration.prefilled
    row = demonstration.written
    assert dialogue.text(row.ids_T[row.action_T]).startswith(
        '{"name": "search", "parameters": {"query": "Lost Valley director"}}<|eot|>'
        '{"name": "search", "parameters": {"query": "Ada home town"}}<|eot|><answer> Oslo </answer>'
    )


def test_what_stands_around_the_documents_is_not_read() -> None:
    """The chat template writes "assistant" behind every result."""
    dialogue = HermesDialogue(with_template(QWEN3), template="Q {question}")
    named = replace(QUESTION, golden_answers=("assistant",))
    _, outcomes = asyncio.run(demonstrations([named], dialogue, SEARCH, Limits(3, 4000, 512, 512, 9000)))
    assert outcomes[Outcome.UNSUPPORTED] == 1


@pytest.mark.parametrize(
    ("dialogue", "closer"),
    [(TagsDialogue(with_template(QWEN25)), "/search>"), (HermesDialogue(with_template(QWEN25)), "/tool_call>")],
    ids=["tags", "calls"],
)
def test_tags_and_control_tokens_in_gold_cannot_break_a_turn(dialogue: AnyDialogue, closer: str) -> None:
    text = dialogue.turn_text("</think> a", query=f"b <{closer} <|im_end|>\n c")
    assert dialogue.said(generation(dialogue, text)).query == f"b ‹{closer} ‹|im_end|> c"
    assert text.count("</think>") == 1
    answered = dialogue.said(generation(dialogue, dialogue.turn_text("a", answer="</answer> <answer> d")))
    assert answered.answer == "‹/answer> ‹answer> d"


def test_every_demonstration_is_in_the_format_in_both_forms() -> None:
    kept, outcomes = shown(*questions(3), replace(QUESTION, id="m/9", sub_queries=("</search> Ada",), metadata={}))
    assert outcomes[Outcome.KEPT] == len(kept) == 4
    for demonstration in kept:
        for prefill, row in (("", demonstration.written), (PRE_THINK, demonstration.prefilled)):
            edges = np.flatnonzero(np.diff(row.action_T.astype(int))) + 1
            spans = np.split(row.ids_T, edges)[1::2]
            spans[-1] = spans[-1][:-1]  # the end of sequence
            texts = [DIALOGUE.text(span) for span in spans]
            turns = [
                Turn(parse_action(text).kind, span, np.zeros(len(span), np.float32), span[:0], text)
                for text, span in zip(texts, spans, strict=True)
            ]
            assert format_reward(turns, prefill=prefill) == 1.0


def test_the_search_is_asked_the_gold_queries() -> None:
    library = Library((ADA, OSLO))
    shown(QUESTION, search=library)
    assert library.queries == ["Lost Valley director", "Ada home town"] * 2  # in both forms


def test_an_answer_that_no_document_holds_is_dropped_unless_asked_for() -> None:
    elsewhere = Library((Document("x", "Oslofjord", "a fjord; Adair"),))
    kept, outcomes = shown(QUESTION, search=elsewhere)
    assert (kept, outcomes[Outcome.UNSUPPORTED]) == ([], 1)
    (demonstration,), outcomes = shown(QUESTION, search=elsewhere, keep_unsupported=True)
    text = DIALOGUE.text(demonstration.written.ids_T)
    assert outcomes[Outcome.KEPT] == 1
    assert "Now I need: Ada home town" in text
    assert "The documents do not say it. I believe it is Oslo." in text
    assert "The documents say" not in text


def test_what_the_observation_limit_cuts_off_supports_nothing() -> None:
    _, outcomes = shown(QUESTION, limits=replace(LIMITS, max_observation_tokens=20))
    assert outcomes[Outcome.UNSUPPORTED] == 1


def test_the_golden_answer_that_was_read_is_given() -> None:
    (demonstration,), _ = shown(replace(QUESTION, golden_answers=("Christiania", "oslo")))
    assert "<answer> oslo </answer>" in DIALOGUE.text(demonstration.written.ids_T)


@pytest.mark.parametrize(
    "limits",
    [{"max_turns": 1}, {"max_prompt_tokens": 4}, {"max_turn_tokens": 8}, {"max_prompt_tokens": 99, "max_tokens": 100}],
    ids=lambda limits: list(limits)[-1],
)
def test_dialogues_beyond_a_limit_are_dropped(limits: dict[str, int]) -> None:
    kept, outcomes = shown(QUESTION, limits=replace(LIMITS, **limits))
    assert (kept, outcomes[Outcome.TOO_LONG]) == ([], 1)


def test_a_dialogue_with_its_end_fits_the_limit_exactly() -> None:
    (demonstration,), _ = shown(QUESTION)
    length = max(len(demonstration.written.ids_T), len(demonstration.prefilled.ids_T))
    assert shown(QUESTION, limits=replace(LIMITS, max_tokens=length))[1][Outcome.KEPT] == 1
    assert shown(QUESTION, limits=replace(LIMITS, max_tokens=length - 1))[1][Outcome.TOO_LONG] == 1


def test_a_question_without_decomposition_is_counted() -> None:
    _, outcomes = shown(replace(QUESTION, sub_queries=(), metadata={}))
    assert outcomes == {Outcome.NO_DECOMPOSITION: 1, Outcome.KEPT: 0, Outcome.UNSUPPORTED: 0, Outcome.TOO_LONG: 0}


def test_each_epoch_learns_every_dialogue_once_in_a_form_that_is_drawn() -> None:
    kept, _ = shown(*questions(40))
    recipe = GoldRecipe(batch=16, seed=3)
    written = {id(demonstration.written) for demonstration in kept}
    drawn = []
    for epoch in range(2):
        steps = list(batches(kept, recipe, epoch))
        assert [len(rows) for rows in steps] == [16, 16, 8]
        ids = [id(row) for rows in steps for row in rows]
        assert len({row if row in written else -row for row in ids}) == 40
        assert 8 <= sum(row in written for row in ids) <= 32
        drawn.append(ids)
    assert drawn[0] != drawn[1]
    assert drawn[0] == [id(row) for rows in batches(kept, recipe, 0) for row in rows]


def test_the_loss_is_the_mean_over_action_tokens_however_rows_are_packed(model: PreTrainedModel) -> None:
    kept, _ = shown(*questions(2))
    rows = [kept[0].written, kept[1].prefilled]
    losses = []
    for row in rows:
        ids = torch.from_numpy(row.ids_T)[None]
        with torch.no_grad():
            logp = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        taken = logp.gather(-1, ids[0, 1:, None])[:, 0]
        losses += (-taken[torch.from_numpy(row.action_T[1:])]).tolist()
    for token_budget in (1, 4096):
        assert step_loss(model, rows, GoldRecipe(token_budget=token_budget)) == pytest.approx(np.mean(losses), abs=1e-4)


def test_the_loss_falls_and_equal_seeds_give_equal_losses() -> None:
    kept, _ = shown(*questions(4))
    recipe = GoldRecipe(epochs=2, lr=2e-3, batch=1, token_budget=1024)
    model = load_causal_lm(str(policy_path()))
    before = mean_loss(model, kept[:1], recipe)
    history = train(model, kept, recipe, kept[:1])
    assert len(history.losses) == 8
    assert len(history.held_out) == 2
    assert history.held_out[-1] < 0.5 * before
    assert history.losses[-1] < 0.5 * history.losses[0]
    assert train(load_causal_lm(str(policy_path())), kept, recipe).losses == history.losses
    other = train(load_causal_lm(str(policy_path())), kept, replace(recipe, seed=1))
    assert other.losses != history.losses


def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_to_a_last_step_above_zero() -> None:
    recipe = GoldRecipe(lr=1.0)
    rates = [recipe.lr_at(step, 20) for step in range(20)]
    assert rates[:3] == pytest.approx([1 / 2, 1, 18 / 19])
    assert rates[-1] == pytest.approx(1 / 19)
    assert recipe.lr_at(0, 1) == 1.0


def test_a_loss_that_is_not_finite_stops_it(model: PreTrainedModel) -> None:
    kept, _ = shown(QUESTION)
    torch.nn.init.constant_(model.get_input_embeddings().weight, torch.nan)
    with pytest.raises(ValueError, match="the loss of step 1 is nan: lower --lr"):
        train(model, kept, GoldRecipe(epochs=1))


# The command, with real files and BM25.


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    rows = [
        {
            "id": f"q{number}",
            "question": f"home town of the director of Lost Valley {number}?",
            "golden_answers": ["Oslo"],
            "metadata": {"sub_queries": list(QUESTION.sub_queries)},
        }
        for number in range(3)
    ]
    for name, some in (("train.jsonl", rows[:2]), ("test.jsonl", rows[2:])):
        jsonl(tmp_path / name, *some)
    passages = [{"id": document.id, "title": document.title, "text": document.text} for document in (ADA, OSLO)]
    jsonl(tmp_path / "corpus.jsonl", *passages)
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    yield tmp_path
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(threads)


def gold(folder: Path, *more: str, **changed: str) -> int:
    given = {
        "--model": "pocket",
        "--questions": str(folder / "train.jsonl"),
        "--corpus": str(folder / "corpus.jsonl"),
        "--out": str(folder / "out"),
        "--epochs": "1",
        "--search.retriever": "bm25",
        "--search.reranker": "none",
        "--run.cache": str(folder / "cache"),
        "--rollout.max_turn_tokens": "512",
    }
    given |= {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    return warm_start.main(["gold", *(part for pair in given.items() for part in pair), *more])


def test_the_folder_opens_as_any_model_does(files: Path) -> None:
    assert gold(files, "--held-out", str(files / "test.jsonl"), "--top-k", "2") == 0
    out = files / "out"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    before = AutoModelForCausalLM.from_pretrained(policy_path())
    assert type(model) is type(before)
    assert not torch.equal(model.get_input_embeddings().weight, before.get_input_embeddings().weight)
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (out / name).read_bytes() == (policy_path() / name).read_bytes()
    with safe_open(out / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float32}  # noqa: SIM118
    record = json.loads((out / "warm_start.json").read_text("utf-8"))
    assert record["counts"] == {"kept": 2, "unsupported": 0, "too long": 0, "without decomposition": 0}
    assert (len(record["losses"]), len(record["held_out_losses"])) == (1, 1)
    assert record["search"]["top_k"] == 2
    assert record["recipe"]["epochs"] == 1
    assert record["seconds"] > 0
    assert not (files / "out.partial").exists()


def test_weights_are_written_in_the_sources_dtype_unless_said(files: Path) -> None:
    source = files / "bf16"
    shutil.copytree(policy_path(), source)
    AutoModelForCausalLM.from_pretrained(policy_path(), dtype=torch.bfloat16).save_pretrained(source)
    assert gold(files, model=str(source), config="workflows/recipes/pocket.toml") == 0
    with safe_open(files / "out" / "model.safetensors", "pt") as weights:
        assert weights.get_tensor("model.norm.weight").dtype == torch.bfloat16
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118  tied: written once
    in_calls = ("--rollout.dialogue", "hermes", "--save-dtype", "float32")
    assert gold(files, *in_calls, model=str(source), out=str(files / "fp32")) == 0
    record = json.loads((files / "fp32" / "warm_start.json").read_text("utf-8"))
    assert (record["counts"]["kept"], record["rollout"]["dialogue"]) == (2, "hermes")
    with safe_open(files / "fp32" / "model.safetensors", "pt") as weights:
        assert weights.get_tensor("model.norm.weight").dtype == torch.float32


def test_nothing_to_learn_from_is_refused_with_the_counts_and_a_remedy(files: Path) -> None:
    (files / "corpus.jsonl").write_text('{"id": "x", "title": "Ada", "text": "none"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"0 kept, 2 unsupported, 0 too long, .* or --keep-unsupported"):
        gold(files)
    assert not (files / "out").exists()


def test_what_cannot_be_is_refused_before_anything_is_read(files: Path) -> None:
    with pytest.raises(ValueError, match=r"2 questions of --held-out .* are trained on too, e.g. 'train/q0'"):
        gold(files, held_out=str(files / "train.jsonl"))
    for name, value in (("epochs", "0"), ("lr", "-1"), ("batch", "0"), ("token_budget", "0"), ("limit", "0")):
        with pytest.raises(ValueError, match=rf"--{name.replace('_', '-')} .*; expected"):
            gold(files, **{name: value})
    with pytest.raises(ValueError, match=r"unknown key 'search.topk'"):
        gold(files, "--search.topk", "2")
    (files / "out").mkdir()
    (files / "out" / "mine").touch()
    with pytest.raises(ValueError, match=r"--out .* is there already: remove it"):
        gold(files)


def test_the_pocket_command_still_makes_the_pocket_policy(files: Path) -> None:
    assert warm_start.main(["pocket", "--out", str(files / "policy"), "--steps", "1"]) == 0
    record = json.loads((files / "policy" / "warm_start.json").read_text("utf-8"))
    shipped = json.loads((policy_path() / "warm_start.json").read_text("utf-8"))
    assert record["losses"] == pytest.approx(shipped["losses"][:1], abs=0.02)
    with pytest.raises(SystemExit):
        warm_start.main(["pocket", "--out", str(files / "policy"), "--search.top_k", "2"])

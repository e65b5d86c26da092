"""Which chat templates calls of tools can be trained in, what is learned of them, and at which place others part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calibadv.pocket.tokenizer import CHAT_TEMPLATE
from calibadv.rollout.chat_template import Problem
from calibadv.rollout.dialogues.call_syntax import CallSyntax
from calibadv.rollout.dialogues.chat import ChatDialogue
from calibadv.rollout.dialogues.hermes import HermesDialogue
from calibadv.rollout.dialogues.template import TemplateDialogue
from calibadv.rollout.protocols import Result
from calibadv.tags import PRE_THINK, PROMPT_TEMPLATE
from calibadv.types import Document
from tests.rollout.chat_templates import GPT_OSS, LLAMA3, QWEN3, QWEN3_THINKING, QWEN25, with_template

HERMES_CALL = CallSyntax("<tool_call>", "</tool_call>")
NOTHING = np.zeros(0, np.int64)
both = pytest.mark.parametrize("kind", [HermesDialogue, TemplateDialogue])


def dialogue(kind: type[ChatDialogue], template: str, **given: Any) -> ChatDialogue:
    return kind(with_template(template), **{"template": "Q {question}", "date": "2026-11-28", **given})


def fatal(kind: type[ChatDialogue], template: str, **given: Any) -> Problem:
    (found,) = dialogue(kind, template, **given).problems()
    assert found.fatal
    return found


@both
@pytest.mark.parametrize("prefill", ["", PRE_THINK])
@pytest.mark.parametrize(
    ("template", "opens"), [(QWEN3, ""), (QWEN25, ""), (QWEN3_THINKING, "<think>\n")], ids=["3", "2.5", "3 thinking"]
)
def test_qwens_calls_are_taken_and_a_think_that_the_template_opens_is_not_opened_again(
    kind: type[ChatDialogue], prefill: str, template: str, opens: str
) -> None:
    given = dialogue(kind, template, prefill=prefill)
    assert given.problems() == []
    assert given.syntax == HERMES_CALL
    assert given.stop == ("</answer>", "<|im_end|>")
    assert given.opening == (opens or prefill)
    assert given.thinks
    assert given.prompt_text("who?").endswith(
        f"<|im_start|>user\nQ who?<|im_end|>\n<|im_start|>assistant\n{opens or prefill}"
    )
    observed = given.text(given.observed([Result(text="4"), Result((Document("1", "T", "x"),))], NOTHING, 500))
    assert observed == (
        "<|im_end|>\n<|im_start|>user\n<tool_response>\n4\n</tool_response>\n<tool_response>\nDoc 1(Title: T) x\n"
        f"</tool_response><|im_end|>\n<|im_start|>assistant\n{opens or prefill}"
    )


@both
def test_thinking_that_is_switched_off_is_no_part_of_a_turn(kind: type[ChatDialogue]) -> None:
    off = {"arguments": {"enable_thinking": False}}
    given = replace(dialogue(kind, QWEN3, **off), template=PROMPT_TEMPLATE)
    assert (given.opening, given.thinks) == ("<think>\n\n</think>\n\n", False)
    (warning,) = given.problems()
    assert not warning.fatal
    assert "that opens a turn out of earlier turns" in warning.said
    assert "<think>" not in given.prompt_text("who?").rpartition("<|im_start|>user")[2].removesuffix(given.opening)
    wrong = fatal(kind, QWEN3, prefill=PRE_THINK, **off)
    assert wrong.said.endswith("that PreThink is to open")
    assert "pre_think false" in wrong.remedy


def test_the_tools_stand_in_the_system_message_behind_ones_own() -> None:
    text = dialogue(HermesDialogue, QWEN3, system="Be brief.").prompt_text("who?")
    assert text.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n\nYou may call one or more functions")
    assert text.count('{"type": "function", "function": {"name": "search"') == 1
    own = dialogue(TemplateDialogue, QWEN3, system="Be brief.").prompt_text("who?")
    assert own.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n<tools>\n{")


def test_llamas_call_is_a_whole_turn_and_has_no_thoughts() -> None:
    given = dialogue(TemplateDialogue, LLAMA3)
    assert given.problems() == []
    assert given.syntax == CallSyntax("", "", arguments="parameters")
    assert not given.thinks
    assert given.stop == ("</answer>", "<|eot|>")
    assert given.prompt_text("who?").startswith("<|begin|><|head|>system<|/head|>\n\nToday: 28 Nov 2026")
    assert given.writes_date()
    observed = given.text(given.observed([Result(text='say "4"')], NOTHING, 500))
    assert observed == '<|eot|><|head|>ipython<|/head|>\n\n"say \\"4\\""<|eot|><|head|>assistant<|/head|>\n\n'
    assert "drops the thoughts" in fatal(TemplateDialogue, LLAMA3, prefill=PRE_THINK).said


def test_thoughts_in_markup_of_another_kind_are_refused_with_what_was_written() -> None:
    said = fatal(TemplateDialogue, GPT_OSS).said
    assert "writes a thought as '<|channel|>analysis<|message|>Nairobi', expected it between <think> and" in said
    begins = fatal(HermesDialogue, GPT_OSS)
    assert "begins a turn with '<|channel|>final<|message|><think>" in begins.said
    assert begins.remedy == "use rollout.dialogue 'tags', which needs no more than a user's message"


DROPS = QWEN3.replace("loop.index0 > ns.asked and (loop.last or thought)", "loop.last and thought")
COUNTS = QWEN3.replace("{{ m.content }}{{ '\n</tool", "{{ loop.index }}: {{ m.content }}{{ '\n</tool").replace(
    "<|im_start|>user\n{{ m.content }}",
    "<|im_start|>user\n{% if loop.index > 3 %}{{ loop.index }} {% endif %}{{ m.content }}",
)
TRIMS = CHAT_TEMPLATE.replace(
    "message['content']",
    "(message['content'] | replace('\n\n', '\n') if message['role'] == 'assistant' else message['content'])",
)
LENGTH = "{{ messages | length }} messages. " + QWEN3


@pytest.mark.parametrize(
    ("kind", "template", "said"),
    [
        (
            TemplateDialogue,
            DROPS,
            "at the end with a result: behind 'm_end|>\\n<|im_start|>assistant\\n' it writes '<tool_call>",
        ),
        (
            HermesDialogue,
            DROPS,
            "at the end with a result: behind 'm_end|>\\n<|im_start|>assistant\\n' it writes '<tool_call>",
        ),
        (TemplateDialogue, LENGTH, "with a turn of the policy's: behind '' it writes '2 messages.<"),
        (
            HermesDialogue,
            TRIMS,
            "it rewrites what the policy wrote: behind '<think>\\nNairobi\\n</think>\\n' it writes",
        ),
        (TemplateDialogue, COUNTS, "writes a second result otherwise than the first: behind "),
        (HermesDialogue, COUNTS, "writes a second result otherwise than the first: behind "),
    ],
    ids=["drops", "drops, hermes", "counts all", "trims", "counts", "counts, hermes"],
)
def test_a_template_that_does_not_only_add_is_refused_with_the_place_where_it_parts(
    kind: type[ChatDialogue], template: str, said: str
) -> None:
    found = fatal(kind, template)
    assert said in found.said
    assert "rollout.dialogue" in found.remedy


def test_a_template_without_calls_or_without_a_system_message_names_what_else_there_is() -> None:
    none = fatal(TemplateDialogue, CHAT_TEMPLATE)
    assert "in which no JSON holds name and arguments" in none.said
    assert none.remedy.startswith("use rollout.dialogue 'hermes'")
    no_system = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
    found = fatal(HermesDialogue, no_system)
    assert "takes no system message (no system)" in found.said
    assert found.remedy.startswith("use rollout.dialogue 'tags'")


@both
def test_a_result_is_cut_to_its_budget_and_the_frame_around_it_stays(kind: type[ChatDialogue]) -> None:
    given = dialogue(kind, QWEN3)
    frame = len(given.observed([Result(text="")], NOTHING, 500))
    results = [Result((Document("1", "T", "ä" * 300),)), Result(text="b" * 300, max_tokens=7)]
    ids = given.observed(results, NOTHING, 2 * frame)
    assert len(ids) <= 2 * frame
    text = given.text(ids)
    assert text.count("</tool_response>") == 2
    assert "\nbbbbbbb\n" in text
    assert text.endswith("<|im_start|>assistant\n")
    with pytest.raises(ValueError, match=f"needs at least {frame} tokens, the limit is {frame - 1}"):
        given.observed([Result(text="4")], NOTHING, frame - 1)

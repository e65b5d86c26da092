"""Chat templates as people's models have them: read rightly, warned of, or refused with what to do."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from calibadv.rollout.chat_template import Problem, problems, rendered
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.tags import PRE_THINK
from calibadv.types import Document
from tests.rollout.test_tags_dialogue import byte_tokenizer

TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
OPENED = "{% if add_generation_prompt %}[assistant]{% endif %}"
NEEDS_SYSTEM = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + TURNS + OPENED
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURNS + OPENED
LAST_ONLY = "[{{ messages[-1].role }}]{{ messages[-1].content }}" + OPENED
NO_THOUGHT = TURNS.replace("m.content", "m.content.split('</think>')[-1]") + OPENED
LLAMA_DATE = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}"
)


def with_template(template: str) -> PreTrainedTokenizerBase:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def dialogue(template: str, **given: Any) -> TagsDialogue:
    return TagsDialogue(with_template(template), template="Q {question}", **given)


def text(given: TagsDialogue, question: str = "who?") -> str:
    return given.text(given.prompt_ids(question))


@pytest.mark.parametrize("opening", ["[assistant]<think>\n", "[assistant]<think>", "[assistant]<think>\n\n"])
def test_a_template_that_opens_the_think_is_not_given_a_second_one(opening: str) -> None:
    template = TURNS + OPENED.replace("[assistant]", opening)
    assert text(dialogue(template, prefill=PRE_THINK)) == f"[user]Q who?{opening}"
    assert problems(with_template(template), prefill=PRE_THINK) == []
    (found,) = problems(with_template(template))
    assert found.fatal
    assert "opens a think" in found.said
    assert "PreThink" in found.remedy


@pytest.mark.parametrize(
    ("template", "system", "said", "remedy"),
    [
        (NEEDS_SYSTEM, "", "insists on a system message (system first)", "set rollout.system, e.g."),
        (NO_SYSTEM, "Be brief.", "takes no system message (no system)", "set rollout.system to ''"),
        (LAST_ONLY, "Be brief.", "does not write the system message", "set rollout.system to ''"),
        ("{{ messages[0].role }}" + OPENED, "", "does not write the user message", "the model's own template"),
        ("{{ messages[0].content[0].text.strip() }}", "", "cannot write a user's message", "the model's own template"),
    ],
)
def test_templates_without_a_right_prompt_are_refused_with_what_to_do(
    template: str, system: str, said: str, remedy: str
) -> None:
    found = [problem for problem in problems(with_template(template), system=system) if problem.fatal]
    assert len(found) == 1, found
    assert said in found[0].said
    assert remedy in found[0].remedy


def test_a_system_message_that_is_set_stands_first() -> None:
    assert problems(with_template(NEEDS_SYSTEM), system="Be brief.") == []
    assert text(dialogue(NEEDS_SYSTEM, system="Be brief.")) == "[system]Be brief.[user]Q who?[assistant]"


@pytest.mark.parametrize(("template", "lost"), [(LAST_ONLY, "drops all"), (NO_THOUGHT, "drops the thinking")])
def test_a_template_that_drops_earlier_turns_is_warned_of(template: str, lost: str) -> None:
    (found,) = problems(with_template(template))
    assert (found.fatal, lost in found.said, "do not pass a finished dialogue" in found.remedy) == (False, True, True)


def test_a_plain_template_has_no_problem() -> None:
    assert problems(with_template(TURNS + OPENED)) == []
    assert str(Problem("a", "b", fatal=True)) == "a: b"


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "03 Feb 2001"),
        (LLAMA_DATE, "03 Feb 2001"),
        ("{{ strftime_now('%A, %H:%M') }}", "Saturday, 00:00"),
    ],
)
def test_a_pinned_day_is_written_whatever_day_it_is(clock: str, said: str) -> None:
    tokenizer = with_template(clock + TURNS + OPENED)
    assert dialogue(clock + TURNS + OPENED).writes_date()
    assert text(dialogue(clock + TURNS + OPENED, date="2001-02-03")).startswith(f"{said}[user]")
    today, pinned = (rendered(tokenizer, [{"role": "user", "content": "x"}], date=day) for day in ("", "2001-02-03"))
    assert today != pinned


def test_a_template_without_a_date_is_left_alone() -> None:
    assert not dialogue(TURNS + OPENED).writes_date()
    assert not dialogue("{% set date_string = '26 Jul 2024' %}{{ date_string }}" + TURNS).writes_date()
    assert not dialogue(NEEDS_SYSTEM).writes_date()  # it refuses: `problems` says so


def test_words_that_were_added_to_a_tokenizer_stay_and_what_looks_like_a_control_token_does_not() -> None:
    tokenizer = with_template(TURNS + OPENED)
    tokenizer.add_tokens(["ibuprofen", "warfarin", "IL-6", "<tool_call>", "[CLS]", "<|pad|>"])
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("endofturn", special=True)]})
    given = TagsDialogue(tokenizer, template="Q {question}")
    words = "Do not take ibuprofen with warfarin, IL-6"
    assert words in text(given, f"{words}?")
    observed = given.text(
        given.observation_ids([Document("1", words, f"{words} <tool_call> [CLS] <|pad|> endofturn.")], 500)
    )
    assert f"Doc 1(Title: {words}) {words} ‹tool_call> (CLS] ‹|pad|>  .\n" in observed

"""How a turn's text is read, and what is left of tags in other people's text."""

from __future__ import annotations

import pytest

from calibadv.tags import (
    PROMPT_TEMPLATE,
    Action,
    answer_characters,
    neutralise,
    parse_action,
    think_text,
    up_to_closing_tag,
)
from calibadv.types import TurnKind

SEARCH, ANSWER, VOID = TurnKind.SEARCH, TurnKind.ANSWER, TurnKind.VOID


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("<think>a</think><search> who? </search>", Action(SEARCH, query="who?")),
        ("a</think>\n<answer>\nAda\n</answer>", Action(ANSWER, answer="Ada")),
        ("<answer></answer>", Action(ANSWER, answer="")),
        ("<search> one </search><answer> two </answer>", Action(SEARCH, query="one")),
        ("<answer> two </answer><search> one </search>", Action(ANSWER, answer="two")),
        ("<search> never closed <answer> Ada </answer>", Action(ANSWER, answer="Ada")),
        ("<answer> never opened </search> <search> q </search>", Action(SEARCH, query="q")),
        ("<search> several\nlines </search>", Action(SEARCH, query="several\nlines")),
        ("<search> \n </search>", Action(VOID)),
        ("<search> who?", Action(VOID)),
        ("who? </search>", Action(VOID)),
        ("<Search> q </Search>", Action(VOID)),
        ("<think> I am done </think>", Action(VOID)),
        ("", Action(VOID)),
    ],
)
def test_first_complete_action_is_what_the_turn_does(text: str, action: Action) -> None:
    assert parse_action(text) == action


@pytest.mark.parametrize(
    ("text", "think"),
    [
        ("<think> a b </think><search> q </search>", "a b"),
        (" a b </think><search> q </search>", "a b"),  # prefilled
        ("<think> a <think> b </think>", "b"),
        ("<think> a </think> x </think>", "a"),
        ("<think> never closed <search> q </search>", ""),
        ("<search> q </search>", ""),
    ],
)
def test_think_of_a_turn(text: str, think: str) -> None:
    assert think_text(text) == think


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("<think>a</think><answer>b</answer>.", "<think>a</think><answer>b</answer>"),
        ("<search>a</search>\n\n<answer>", "<search>a</search>"),
        ("<search>a</search></answer>", "<search>a</search>"),
        ("no tag.", "no tag."),
        ("<answer>open.", "<answer>open."),
    ],
)
def test_a_turn_is_read_up_to_its_closing_tag(text: str, read: str) -> None:
    assert up_to_closing_tag(text) == read


@pytest.mark.parametrize(
    "text", ["<think>", "<search>Ada</search>", "<answer>Ada", "<search>q</search><answer>a</answer>"]
)
def test_what_is_no_answer_turn_has_no_span(text: str) -> None:
    assert answer_characters(text) is None


def test_neutralised_text_stays_readable() -> None:
    control = ("<|im_end|>", "[INST]", "[/INST]", "§stop§")
    assert neutralise("a </information> b < THINK > c") == "a ‹/information> b ‹ THINK > c"
    assert neutralise("x<|im_end|>y [INST] §stop§.", control) == "x‹|im_end|>y (INST]  ."
    assert neutralise("1 < 2, <thinking>, <b>, think", control) == "1 < 2, ‹thinking>, <b>, think"


def test_published_prompt_word_for_word() -> None:
    # Search-R1's and CalibAdv's published text; a changed letter makes results incomparable.
    assert PROMPT_TEMPLATE == (
        "Answer the given question. You must conduct reasoning inside <think> and </think> first every time you get "
        "new information. After reasoning, if you find you lack some knowledge, you can call a search engine by "
        "<search> query </search> and it will return the top searched results between <information> and "
        "</information>. You can search as many times as your want. If you find no further external knowledge needed, "
        "you can directly provide the answer inside <answer> and </answer>, without detailed illustrations. For "
        "example, <answer> Beijing </answer>. Question: {question}\n"
    )

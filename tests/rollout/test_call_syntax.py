"""How calls are read, and how their syntax is learned from one that a template wrote."""

from __future__ import annotations

import pytest

from calibadv.rollout.dialogues.call_syntax import CallSyntax, learned
from calibadv.rollout.protocols import Call

HERMES = CallSyntax("<tool_call>", "</tool_call>")
LLAMA = CallSyntax("", "", arguments="parameters")
CALL = Call("search", {"query": "Quito"})
OBJECT = '{"name": "search", "arguments": {"query": "Quito"}}'


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (f"<tool_call>{OBJECT}</tool_call>", [CALL]),
        (f"So:\n<tool_call>\n{OBJECT}\n</tool_call> and <tool_call> {OBJECT} </tool_call>", [CALL, CALL]),
        (f"<tool_call>{OBJECT}</tool_call><tool_call>{{</tool_call>", [CALL]),
        (f"<tool_call>{OBJECT}", []),
        ("<tool_call>search</tool_call>", []),
        ('<tool_call>{"name": 3, "arguments": {}}</tool_call>', []),
        ('<tool_call>{"arguments": {}}</tool_call>', []),
        ('<tool_call>{"name": "now"}</tool_call>', [Call("now", {})]),
        ('<tool_call>{"name": "now", "arguments": [1]}</tool_call>', [Call("now", {})]),
        ('<tool_call>{"name": "search", "arguments": "{\\"query\\": \\"Quito\\"}"}</tool_call>', [CALL]),
        ('<tool_call>{"name": "say", "arguments": {"a": "x\ny"}}</tool_call>', [Call("say", {"a": "x\ny"})]),
        ("<tool_call>" + '{"a":' * 100_000, []),
    ],
    ids=range(12),
)
def test_complete_calls_are_read_in_order(text: str, calls: list[Call]) -> None:
    assert [written.call for written in HERMES.read(text)] == calls


def test_half_a_character_in_a_call_is_a_question_mark() -> None:
    text = r'<tool_call>{"name": "search", "arguments": {"query": "a \ud83d", "in": ["\ud83d"]}}</tool_call>'
    (written,) = HERMES.read(text)
    assert written.call == Call("search", {"query": "a ?", "in": ["?"]})


def test_a_call_without_an_opener_is_the_whole_turn() -> None:
    text = OBJECT.replace("arguments", "parameters")
    assert [written.call for written in LLAMA.read(f" {text}{text}")] == [CALL]
    assert LLAMA.read(f"I call {text}") == []


@pytest.mark.parametrize(
    ("text", "end", "syntax"),
    [
        (f"HEAD<tool_call>\n{OBJECT}\n</tool_call><end>\n", "<end>\n", HERMES),
        ("HEAD" + OBJECT.replace("arguments", "parameters") + "<end>", "<end>", LLAMA),
        (
            'HEAD[CALLS] [{"name": "search", "arguments": {"query": "Quito"}, "id": "1"}]</s>',
            "</s>",
            CallSyntax("[CALLS] [", "]"),
        ),
        ('HEAD<call>function<sep>search\n```json\n{"query": "Quito"}\n```</call><end>', "<end>", None),
        (
            'HEAD to=functions.search json<m>{"query": "Quito"}<|call|>',
            "<end>",
            CallSyntax("to=functions.", "", "", "", "json<m>"),
        ),
    ],
    ids=["hermes", "llama", "mistral", "deepseek", "name first"],
)
def test_a_syntax_is_learned_and_reads_what_it_was_learned_from(text: str, end: str, syntax: CallSyntax | None) -> None:
    found = learned(text, CALL, len("HEAD"), end)
    assert found is not None
    assert syntax is None or found[0] == syntax
    (written,) = found[0].read(text[len("HEAD") :])
    assert written.call == CALL
    assert len("HEAD") + written.end == found[2]


def test_a_call_without_json_is_not_learned() -> None:
    text = "<function=search><parameter=query>Quito</parameter></function>"
    assert learned(text, CALL, 0, "") is None

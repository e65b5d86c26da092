"""The page of a dialogue shows every token that a policy reads."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from calibadv.rollout.dialogues.hermes import HermesDialogue
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.tags import PRE_THINK
from calibadv.views.dialogue import Shown, dialogue_page
from tests.rollout.scripted import TOKENIZER


def shown(dialogue: Shown, name: str) -> str:
    written = StringIO()
    Console(width=120, file=written).print(dialogue_page(dialogue, name, "Who is Ada?", getattr(dialogue, "tools", ())))
    return written.getvalue()


def test_prompt_result_and_stops_are_shown_token_by_token() -> None:
    text = shown(TagsDialogue(TOKENIZER, PRE_THINK, "Q {question}"), "tags")
    ids = {tag: TOKENIZER.convert_tokens_to_ids(tag) for tag in ("<think>", "</search>", "</answer>", "<|im_end|>")}
    assert "Q· Who· is· ·A·d·a·?" in text
    assert f"</search>[{ids['</search>']}]   </answer>[{ids['</answer>']}]" in text
    assert text.count(f"<think>[{ids['<think>']}]") == 2
    assert f"<|im_end|>[{ids['<|im_end|>']}]" in text


def test_tools_of_a_chat_dialogue_are_shown_with_their_parameters() -> None:
    text = shown(HermesDialogue(TOKENIZER, template="Q {question}"), "hermes")
    assert "tool search" in text
    assert '"required": ["query"]' in text

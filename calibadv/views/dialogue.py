"""The page of a dialogue: what the policy reads and where its turns end, token by token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from calibadv.rollout.protocols import Dialogue, Result
from calibadv.types import Document, IntArray
from calibadv.views.printable import printable

BETWEEN = "·"  # two tokens
_FOUND = (Document("1", "Ada Lovelace", "Ada Lovelace was born in London."),)
_ROOM = 4096  # tokens


class Shown(Dialogue, Protocol):
    """A dialogue with a tokenizer of its own."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...


def dialogue_page(dialogue: Shown, name: str, question: str, tools: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What `train.py --dry-run` prints of a dialogue: the prompt of a question, a search's result, tools and stops."""
    tokenizer = dialogue.tokenizer
    prompt, observed = (
        dialogue.prompt_ids(question),
        dialogue.observed([Result(_FOUND)], np.zeros(0, np.int64), _ROOM),
    )
    table = Table(
        title=f"The dialogue ({name}): {BETWEEN} stands between tokens, and a control token has its id behind it",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_header=False,
    )
    table.add_row(f"prompt\n{len(prompt):,} tokens", _pieces(tokenizer, prompt))
    table.add_row(f"a search's result\n{len(observed):,} tokens", _pieces(tokenizer, observed))
    for tool in tools:
        about = tool["function"]
        table.add_row(f"tool {about['name']}", Text(printable(json.dumps(about["parameters"], ensure_ascii=False))))
    stops = [_pieces(tokenizer, _encoded(tokenizer, stop)) for stop in dialogue.stop]
    ends = (
        _pieces(tokenizer, np.array([tokenizer.eos_token_id])) if tokenizer.eos_token_id is not None else Text("none")
    )
    table.add_row("a turn ends behind", Text("   ").join(stops))
    table.add_row("end of sequence", ends)
    return table


def _pieces(tokenizer: PreTrainedTokenizerBase, ids: IntArray) -> Text:
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    text = Text()
    for number, token in enumerate(ids.tolist()):
        text.append(BETWEEN if number else "", "dim")
        piece = tokenizer.decode([token], skip_special_tokens=False)
        text.append("".join(c if c.isprintable() or c == "\n" else "�" for c in piece).replace("\n", "⏎\n"))
        text.append(f"[{token}]" if token in special else "", "cyan")
    return text


def _encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> IntArray:
    return np.asarray(tokenizer.encode(text, add_special_tokens=False), np.int64)

"""The words of a search dialogue: its prompt, its tags, and how a turn's text is read. Plain text, no tokenizer.

The prompt is Search-R1's and CalibAdv's published string, so that results compare.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from calibadv.types import TurnKind

PROMPT_TEMPLATE = (
    "Answer the given question. You must conduct reasoning inside <think> and </think> first every time you get new "
    "information. After reasoning, if you find you lack some knowledge, you can call a search engine by <search> query "
    "</search> and it will return the top searched results between <information> and </information>. You can search "
    "as many times as your want. If you find no further external knowledge needed, you can directly provide the answer "
    "inside <answer> and </answer>, without detailed illustrations. For example, <answer> Beijing </answer>. "
    "Question: {question}\n"
)
RETRY_MESSAGE = (
    "\nMy previous action is invalid. If I want to search, I should put the query between <search> and </search>. "
    "If I want to give the final answer, I should put the answer between <answer> and </answer>. Let me try again.\n"
)
PRE_THINK = "<think>"

TAGS = ("think", "search", "information", "answer")
_ACTION = re.compile(r"<(search|answer)>(.*?)</\1>", re.DOTALL)
# White space stands once only before the slash: two runs side by side would be tried in every split of a long one.
_CLOSED = re.compile(r".*?</(?:search|answer)>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Action:
    """What a turn's text says: its kind, and the query or the answer it carries."""

    kind: TurnKind
    query: str | None = None
    answer: str | None = None


def parse_action(text: str) -> Action:
    """The first complete search or answer of a turn's text; VOID if there is none or its query is blank.

    Tags inside an unclosed think do count: the format reward, not the parser, judges the order of the blocks.
    """
    match = _ACTION.search(text)
    if match is None:
        return Action(TurnKind.VOID)
    content = match.group(2).strip()
    if match.group(1) == "answer":
        return Action(TurnKind.ANSWER, answer=content)
    return Action(TurnKind.SEARCH, query=content) if content else Action(TurnKind.VOID)


def answer_characters(turn_text: str) -> tuple[int, int] | None:
    """Where the turn's answer stands in its text, both tags included; None if `parse_action` finds no answer."""
    match = _ACTION.search(turn_text)
    return match.span() if match is not None and match.group(1) == "answer" else None


def up_to_closing_tag(text: str) -> str:
    """`text` up to and with its first `</search>` or `</answer>`; without one, as it is.

    Sampling stops there, but the tag's last token may hold what follows too (`>.`): that token is sampled and trains
    as a whole, and its rest is no part of what a turn says.
    """
    match = _CLOSED.match(text)
    return match.group() if match is not None else text


def think_text(turn_text: str) -> str:
    """The reasoning of a turn, whether its opening tag was written or prefilled; '' if it is never closed."""
    head, closed, _ = turn_text.partition("</think>")
    return head.rpartition("<think>")[2].strip() if closed else ""


def neutralise(text: str, forbidden: Sequence[str] = (), tags: Sequence[str] = TAGS) -> str:
    """`text` in which none of the dialogue's `tags` and no `forbidden` token string can be read.

    Other text is left as it is. The opening `<` becomes `‹` (U+2039): still readable, never a tag. `forbidden` are the
    tokenizer's own control tokens, e.g. `<|im_end|>`.
    """
    for token in forbidden:
        if token in text:
            text = text.replace(token, token.replace("<", "‹").replace("[", "(") if token[0] in "<[" else " ")
    return _tag_like(tuple(tags)).sub("‹", text)  # last: a token that is taken out may leave a tag behind


@cache
def _tag_like(tags: tuple[str, ...]) -> re.Pattern[str]:
    # Longer words too (<searching>): an observation that is cut may end within one, and then ends as a tag does.
    return re.compile(rf"[<＜﹤](?=\s*(?:/\s*)?(?:{'|'.join(tags)}))", re.IGNORECASE)

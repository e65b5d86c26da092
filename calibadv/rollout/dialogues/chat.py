"""A dialogue of chat messages: calls of tools, each answered by a message, in the turns of the model's chat template.

Token-exact: of a rendering only what stands behind the policy's turn is encoded. It is the difference of two renderings
of which one begins with the other; where it does not, `problems` says at which place they part, and nothing is trained.

An answer is what stands in <answer>, as in the dialogue in tags: F1 needs to know which words it is, the figures of all
dialogues compare, and a turn that neither calls nor answers stays one.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from calibadv.rollout.chat_template import ERRORS, OPENS, Message, Problem, parts_at, problems
from calibadv.rollout.dialogues.call_syntax import CallSyntax
from calibadv.rollout.dialogues.tokenized import TokenizedDialogue
from calibadv.rollout.protocols import SEARCH, Call, Generation, Result, Said, StopReason, query_of
from calibadv.tags import PROMPT_TEMPLATE, TAGS
from calibadv.types import IntArray, Turn, TurnKind

ANSWERED = "</answer>"
SEARCH_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": SEARCH,
        "description": "Returns the passages that fit a query best.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "What to look for."}},
            "required": ["query"],
        },
    },
}
_REASON = "You must conduct reasoning inside <think> and </think> first every time you get new information. "
PROMPT = (
    "Answer the given question. {reason}If you find you lack some knowledge, you can call a tool, as many times as you "
    "want. If you find no further external knowledge needed, you can directly provide the answer inside <answer> and "
    "</answer>, without detailed illustrations. For example, <answer> Beijing </answer>. Question: {question}\n"
)
_CORRECTION = (
    "Error: neither a call nor an answer. To call a tool, write a call as it was shown; to answer, write the answer "
    "between <answer> and </answer>."
)
_TAG = re.compile(rf"</?(?:{'|'.join(TAGS)})>")
_THINK = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_OPENED = re.compile(r"<think>\s*(?:</think>\s*)?\Z")  # at the end of a generation prompt
_EMPTY_THINK = re.compile(r"<think>\s*</think>\s*")
# What the template is tried with.
_ASKED, _THOUGHTS, _QUERIES, _FOUND, _SAID = "Lisbon", ("Nairobi", "Lima"), ("Quito", "Baku"), ("Oslo", "Oslo"), "Dakar"


@dataclass(frozen=True)
class ChatDialogue(TokenizedDialogue):
    """Prompt, calls and results as chat messages; `tools` are JSON schemas, the search's among them."""

    tools: tuple[Mapping[str, Any], ...] = (SEARCH_TOOL,)

    tags: ClassVar[Sequence[str]] = (*TAGS, "tool")

    # ---- what a dialogue of this kind says ----------------------------------------------------------------------

    @abstractmethod
    def _head(self, content: str) -> list[Message]:
        """The messages before the first turn."""

    @abstractmethod
    def _turn(self, thought: str, calls: Sequence[Call]) -> Message:
        """A turn of the policy's."""

    @abstractmethod
    def _replies(self, texts: Sequence[str]) -> list[Message]:
        """What as many calls are answered with."""

    @property
    @abstractmethod
    def _given_tools(self) -> Sequence[Mapping[str, Any]]:
        """What the template itself is to write of the tools."""

    @property
    @abstractmethod
    def syntax(self) -> CallSyntax:
        """How calls are written. ValueError where that cannot be known."""

    @property
    @abstractmethod
    def _keeps_thoughts(self) -> bool:
        """Whether the template writes the thoughts of turns."""

    @property
    @abstractmethod
    def call_end(self) -> str:
        """What the template writes behind a turn with calls, up to the next message."""

    # ---- tokens -------------------------------------------------------------------------------------------------

    def prompt_text(self, question: str) -> str:
        """The messages in the model's chat template, and what opens the first turn."""
        return self._opened(self._write(self._head(self._content(question)), opened=True))

    def observed(self, results: Sequence[Result], action_ids: IntArray, max_tokens: int) -> IntArray:
        """Token ids [O <= max_tokens] of the results, up to where the next turn begins; the longest are cut.

        Without the end of the turn where the policy wrote it itself.
        """
        texts = []
        for result in results:
            text = self._listed(result.documents) if result.text is None else self._harmless(result.text)
            texts.append(text.strip() if result.max_tokens is None else self._first_tokens(text, result.max_tokens))
        ids = self._behind(texts, action_ids)
        for _ in range(_CUTS):
            if len(ids) <= max_tokens:
                return ids
            lengths = [len(self._encode(text)) for text in texts]
            longest = int(np.argmax(lengths))
            texts[longest] = self._first_tokens(texts[longest], max(0, lengths[longest] - len(ids) + max_tokens))
            ids = self._behind(texts, action_ids)
        ids = self._behind([""] * len(texts), action_ids)
        if len(ids) > max_tokens:
            raise ValueError(f"an observation needs at least {len(ids)} tokens, the limit is {max_tokens}")
        return ids

    def corrected(self, action_ids: IntArray, max_tokens: int) -> IntArray:
        """Token ids [O] of a result that says what a turn must be."""
        return self.observed([Result(text=_CORRECTION)], action_ids, max_tokens)

    @cached_property
    def opening(self) -> str:
        """What stands before every turn and belongs to it: a think that the template opens, else the prefill."""
        text = self._write(self._head(_ASKED), opened=True)
        match = _OPENED.search(text)
        return match.group() if match else self.prefill

    @cached_property
    def stop(self) -> tuple[str, ...]:
        """The end of an answer, and what the template ends a turn with."""
        ends = dict.fromkeys(end.strip() for end in (self.call_end, self._plain_end))
        return (ANSWERED, *(end for end in ends if end))

    # ---- reading ------------------------------------------------------------------------------------------------

    def said(self, generation: Generation) -> Said:
        """The turn's calls, or its answer, whichever comes first behind its thoughts."""
        ids = generation.ids[:-1] if generation.stop is StopReason.EOS else generation.ids
        text = self.text(ids)
        for end in self.stop[1:]:
            text = text.rstrip().removesuffix(end) if text.rstrip().endswith(end) else text
        if generation.stop is StopReason.TAG and ANSWERED in text:
            text = text[: text.rindex(ANSWERED) + len(ANSWERED)]  # its last token may hold more
        body = text.rfind("</think>") + len("</think>") if "</think>" in text else 0
        written = self.syntax.read(text[body:])
        answer = _ANSWER.search(text, body)
        if answer and not (written and body + written[0].start < answer.start()):
            return Said(TurnKind.ANSWER, text, answer=answer.group(1).strip(), answer_characters=answer.span())
        calls = tuple(each.call for each in (written if self._takes_several else written[:1]))
        if not calls:
            return Said(TurnKind.VOID, text)
        return Said(TurnKind.SEARCH if any(map(query_of, calls)) else TurnKind.CALL, text, calls)

    def format_reward(self, turns: Sequence[Turn], *, require_search: bool) -> float:
        """1 for think + calls, …, think + answer, with only white space between; a search among them if required.

        Without thoughts where the template writes none.
        """
        if not turns or (require_search and not any(turn.kind is TurnKind.SEARCH for turn in turns)):
            return 0.0
        *earlier, last = turns
        calls = all(turn.kind in (TurnKind.SEARCH, TurnKind.CALL) for turn in earlier)
        return float(calls and last.kind is TurnKind.ANSWER and all(map(self._sound, turns)))

    def _sound(self, turn: Turn) -> bool:
        text = f"{self.opening}{turn.text}"
        thought, body = "", text
        if self.thinks or self.opening:
            match = _THINK.fullmatch(text)
            if match is None:
                return False
            thought, body = match.groups()
        if _TAG.search(thought) or (self.syntax.opener and self.syntax.opener in thought):
            return False
        if turn.kind is TurnKind.ANSWER:
            answer = re.fullmatch(rf"\s*{_ANSWER.pattern}\s*", body, re.DOTALL)
            return answer is not None and not _TAG.search(answer.group(1))
        for each in reversed(self.syntax.read(body)):
            body = body[: each.start] + body[each.end :]
        return not body.strip()

    @cached_property
    def thinks(self) -> bool:
        """Whether each turn begins with a think of the policy's."""
        return "</think>" not in self.opening and self._keeps_thoughts

    # ---- what is wrong with the template ------------------------------------------------------------------------

    def problems(self) -> list[Problem]:
        """Everything that is wrong with the chat template for this dialogue."""
        system = next((str(m["content"]) for m in self._head(_ASKED) if m["role"] == "system"), "")
        found = problems(self.tokenizer, system=system, prefill=OPENS, arguments=self.arguments)
        if fatal := [problem for problem in found if problem.fatal]:
            unasked = system and not self.system  # it holds the tools alone
            return [replace(problem, remedy=self._instead) for problem in fatal] if unasked else fatal
        try:
            return list(self._problems())
        except ERRORS as error:
            return [
                Problem(f"the chat template cannot write a call and its result ({error})", self._instead, fatal=True)
            ]

    _instead: ClassVar[str] = "use rollout.dialogue 'hermes', or 'tags', which needs no more than a user's message"

    def _problems(self) -> Iterator[Problem]:
        if self.prefill and "</think>" in self.opening:
            yield Problem(
                f"the chat template closes the think ({self.opening!r}) that PreThink is to open",
                "set method.params.pre_think false, or rollout.template_arguments.enable_thinking true",
                fatal=True,
            )
            return
        if self.opening and not self._keeps_thoughts and "</think>" not in self.opening:
            yield Problem(
                f"a turn begins with {self.opening!r}, and the chat template drops the thoughts of earlier turns",
                f"set method.params.pre_think false; or {self._instead}",
                fatal=True,
            )
            return
        for before, after, when in self._growth():
            if after.startswith(before):
                begins, added = OPENS if self.thinks else self.syntax.opener, after[len(before) :].lstrip()
                if "</think>" in self.opening:
                    added = _EMPTY_THINK.sub("", added)
                if "turn" in when and not added.startswith(begins):
                    said = (
                        f"the chat template begins a turn with {added[:40]!r}, and the policy begins it with {begins!r}"
                    )
                    yield Problem(said, self._instead, fatal=True)
                    return
                continue
            if "</think>" in self.opening and _EMPTY_THINK.sub("", after).startswith(_EMPTY_THINK.sub("", before)):
                yield Problem(
                    f"the chat template leaves the {self.opening!r} that opens a turn out of earlier turns",
                    "rollouts keep it; what serves the trained model had better keep it too",
                    fatal=False,
                )
                break
            said = f"the chat template does not only add text at the end {when}: {parting(before, after)}"
            yield Problem(said, self._instead, fatal=True)
            return
        if self._behind_text([_FOUND[0]]) != self._second_reply:
            said = "the chat template writes a second result otherwise than the first: "
            yield Problem(said + parting(self._behind_text([_FOUND[0]]), self._second_reply), self._instead, fatal=True)

    def _growth(self) -> Iterator[tuple[str, str, str]]:
        """(a dialogue as far as the policy has read it, the same when it has gone on, what was added)."""
        messages = self._head(_ASKED)
        thoughts = _THOUGHTS if self.thinks else ("", "")
        steps = list(zip(thoughts, _QUERIES, _FOUND, ("a", "another"), strict=True))
        for thought, query, found, which in steps:
            before = _OPENED.sub("", self._write(messages, opened=True))
            messages = [*messages, self._turn(thought, [Call(SEARCH, {"query": query})])]
            closed = self._write(messages)
            yield before, closed, f"with {which} turn of the policy's"
            messages = [*messages, *self._replies([found])]
            yield closed, self._write(messages, opened=True), f"with {which} result"
        final = {"role": "assistant", "content": f"<answer> {_SAID} </answer>"}
        if self.thinks:
            final["content"] = f"{think(_THOUGHTS[0])}{final['content']}"
        yield _OPENED.sub("", self._write(messages, opened=True)), self._write([*messages, final]), "with an answer"

    @cached_property
    def _second_reply(self) -> str:
        thought = _THOUGHTS[0] if self._keeps_thoughts else ""
        turn = self._turn(thought, [PROBE])
        messages = [*self._head(_ASKED), turn, *self._replies([_FOUND[0]]), turn]
        closed, whole = self._write(messages), self._write([*messages, *self._replies([_FOUND[0]])], opened=True)
        return self.call_end + self._opened(whole.removeprefix(closed))

    @cached_property
    def _takes_several(self) -> bool:
        try:
            return bool(self._behind_text([_FOUND[0], _FOUND[0]]))
        except ERRORS:
            return False

    # ---- renderings ---------------------------------------------------------------------------------------------

    def _write(self, messages: Sequence[Message], *, opened: bool = False) -> str:
        return self._render(messages, opened=opened, tools=self._given_tools)

    def _opened(self, text: str) -> str:
        return text if _OPENED.search(text) else f"{text}{self.prefill}"

    @cached_property
    def _plain_end(self) -> str:
        """What the template writes behind a turn without calls."""
        text = self._write([*self._head(_ASKED), {"role": "assistant", "content": _SAID}])
        return text[text.rindex(_SAID) + len(_SAID) :]

    def _behind_text(self, texts: Sequence[str]) -> str:
        """What stands behind a turn with as many calls: its end, the results, and the opening of the next turn."""
        messages = [*self._head(_ASKED), self._turn(_THOUGHTS[0] if self._keeps_thoughts else "", [PROBE] * len(texts))]
        closed = self._write(messages)
        whole = self._write([*messages, *self._replies(texts)], opened=True)
        if not whole.startswith(closed):
            raise ValueError(f"a result changes what stands before it: {parting(closed, whole)}")
        return self.call_end + self._opened(whole[len(closed) :])

    def _behind(self, texts: Sequence[str], action_ids: IntArray) -> IntArray:
        ids = self._encode(self._behind_text(texts))
        for end in self.stop[1:]:
            mark = self._encode(end)
            if np.array_equal(ids[: len(mark)], mark) and np.array_equal(action_ids[-len(mark) :], mark):
                return ids[len(mark) :]
        return ids

    def _first_tokens(self, text: str, tokens: int) -> str:
        return self.text(self._encode(text)[:tokens]).strip()

    def _content(self, question: str) -> str:
        if self.template != PROMPT_TEMPLATE:
            return super()._content(question)
        prompt = PROMPT.replace("{reason}", _REASON if self.thinks else "")
        return prompt.replace("{question}", self._harmless(question))


PROBE = Call(SEARCH, {"query": _QUERIES[0]})
_CUTS = 8  # a text that was cut may take other tokens: so often it is cut again


def think(thought: str) -> str:
    """A thought as models write it that think."""
    return f"<think>\n{thought}\n</think>\n\n"


def parting(before: str, after: str) -> str:
    """The place from which on `after` no longer reads as `before`."""
    at = parts_at(before, after)
    while at and (before[at - 1].isalnum() or before[at - 1] in "<|/_"):
        at -= 1  # to where a word or a tag begins
    behind, new, old = before[max(0, at - 30) : at], after[at : at + 30], before[at : at + 30]
    return f"behind {behind!r} it writes {new!r} in place of {old!r}"

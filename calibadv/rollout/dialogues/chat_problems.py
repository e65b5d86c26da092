"""What is wrong with a chat template for a dialogue of calls: every rendering must begin with the one before it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from calibadv.rollout.chat_template import ERRORS, OPENS, Problem, problems
from calibadv.rollout.dialogues.chat_writer import ASKED, FOUND, OPENED, SAID, THOUGHT, ChatWriter, parting, think
from calibadv.rollout.protocols import SEARCH, Call

_EMPTY_THINK = re.compile(r"<think>\s*</think>\s*")


def problems_of(writer: ChatWriter, instead: str) -> list[Problem]:
    """Everything that is wrong with the writer's chat template; `instead`: which other dialogue would do."""
    system = next((str(m["content"]) for m in writer.head(ASKED) if m["role"] == "system"), "")
    found = problems(writer.tokenizer, system=system, prefill=OPENS, arguments=writer.arguments)
    if fatal := [problem for problem in found if problem.fatal]:
        unasked = system and not writer.system  # it holds the tools alone
        return [replace(problem, remedy=instead) for problem in fatal] if unasked else fatal
    try:
        return list(_problems(writer, instead))
    except ERRORS as error:
        return [Problem(f"the chat template cannot write a call and its result ({error})", instead, fatal=True)]


def _problems(writer: ChatWriter, instead: str) -> Iterator[Problem]:
    if writer.prefill and "</think>" in writer.opening:
        yield Problem(
            f"the chat template closes the think ({writer.opening!r}) that PreThink is to open",
            "set method.params.pre_think false, or rollout.template_arguments.enable_thinking true",
            fatal=True,
        )
        return
    if writer.opening and not writer.keeps_thoughts and "</think>" not in writer.opening:
        yield Problem(
            f"a turn begins with {writer.opening!r}, and the chat template drops the thoughts of earlier turns",
            f"set method.params.pre_think false; or {instead}",
            fatal=True,
        )
        return
    for before, after, when in _growth(writer):
        if after.startswith(before):
            begins, added = OPENS if writer.thinks else writer.syntax.opener, after[len(before) :].lstrip()
            if "</think>" in writer.opening:
                added = _EMPTY_THINK.sub("", added)
            if "turn" in when and not added.startswith(begins):
                said = f"the chat template begins a turn with {added[:40]!r}, and the policy begins it with {begins!r}"
                yield Problem(said, instead, fatal=True)
                return
            continue
        if "</think>" in writer.opening and _EMPTY_THINK.sub("", after).startswith(_EMPTY_THINK.sub("", before)):
            yield Problem(
                f"the chat template leaves the {writer.opening!r} that opens a turn out of earlier turns",
                "rollouts keep it; what serves the trained model had better keep it too",
                fatal=False,
            )
            break
        said = f"the chat template does not only add text at the end {when}: {parting(before, after)}"
        yield Problem(said, instead, fatal=True)
        return
    first = writer.behind([FOUND], [SEARCH])
    if first != writer.second_reply:
        said = "the chat template writes a second result otherwise than the first: "
        yield Problem(said + parting(first, writer.second_reply), instead, fatal=True)


def _growth(writer: ChatWriter) -> Iterator[tuple[str, str, str]]:
    """(a dialogue as far as the policy has read it, the same when it has gone on, what was added)."""
    messages = writer.head(ASKED)
    thoughts = (THOUGHT, "Lima") if writer.thinks else ("", "")
    steps = list(zip(thoughts, ("Quito", "Baku"), ("a", "another"), strict=True))
    for thought, query, which in steps:
        before = OPENED.sub("", writer.written(messages, opened=True))
        call = Call(SEARCH, {"query": query})
        messages = [*messages, writer.turn(thought, [call])]
        closed = writer.written(messages)
        yield before, closed, f"with {which} turn of the policy's"
        messages = [*messages, *writer.replies([FOUND], [call])]
        yield closed, writer.written(messages, opened=True), f"with {which} result"
    final = {"role": "assistant", "content": f"<answer> {SAID} </answer>"}
    if writer.thinks:
        final["content"] = f"{think(THOUGHT)}{final['content']}"
    yield OPENED.sub("", writer.written(messages, opened=True)), writer.written([*messages, final]), "with an answer"

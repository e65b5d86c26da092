"""The dialogue that Hermes, Qwen2.5 and Qwen3 were trained on (`rollout.dialogue = "hermes"`).

The tools stand in the system message, a call is <tool_call>{"name": …, "arguments": …}</tool_call>, and results come
as a user's message. The words are those of Qwen2.5's chat template; any template with a system message will do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from calibadv.rollout.chat_template import Message, messages_of
from calibadv.rollout.dialogues.call_syntax import CallSyntax
from calibadv.rollout.dialogues.chat import ChatDialogue
from calibadv.rollout.dialogues.chat_writer import PROBE, parting, think
from calibadv.rollout.protocols import Call

_TOOLS = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{signatures}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


class HermesDialogue(ChatDialogue):
    """Calls as Hermes models write them, in any chat template."""

    syntax = CallSyntax("<tool_call>", "</tool_call>")
    given_tools: Sequence[Mapping[str, Any]] = ()
    keeps_thoughts = True  # a template that does not is refused
    _instead = "use rollout.dialogue 'tags', which needs no more than a user's message"

    def head(self, content: str) -> list[Message]:
        signatures = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in self.tools)
        system = f"{self.system}\n\n" if self.system else ""
        return messages_of(content, system + _TOOLS.format(signatures=signatures))

    def turn(self, thought: str, calls: Sequence[Call]) -> Message:
        return {"role": "assistant", "content": _written(thought, calls)}

    def replies(self, texts: Sequence[str], calls: Sequence[Call]) -> list[Message]:  # noqa: ARG002 (named nowhere)
        content = "\n".join(f"<tool_response>\n{text}\n</tool_response>" for text in texts)
        return [{"role": "user", "content": content}]

    @cached_property
    def call_end(self) -> str:
        """What the template writes behind an assistant's message. ValueError where that is not left as it is."""
        content = _written("Nairobi", [PROBE])
        text = self.written([*self.head("Lisbon"), {"role": "assistant", "content": content}])
        if content not in text:
            begins = max(range(len(content)), key=lambda n: content[:n] in text and n)
            place = text.find(content[:begins])
            raise ValueError(f"it rewrites what the policy wrote: {parting(content, text[place:])}")
        return text[text.rindex(content) + len(content) :]


def _written(thought: str, calls: Sequence[Call]) -> str:
    bodies = (json.dumps({"name": call.tool, "arguments": dict(call.arguments)}, ensure_ascii=False) for call in calls)
    return (think(thought) if thought else "") + "\n".join(f"<tool_call>\n{body}\n</tool_call>" for body in bodies)

"""A dialogue of chat messages: calls of tools, each answered by a message, in turns of the model's chat template."""

from __future__ import annotations

from typing import ClassVar

from calibadv.rollout.chat_template import Problem
from calibadv.rollout.dialogues.chat_problems import problems_of
from calibadv.rollout.dialogues.chat_writer import ChatWriter
from calibadv.rollout.dialogues.in_calls import InCalls


class ChatDialogue(ChatWriter, InCalls):
    """Written as chat messages, read as calls."""

    _instead: ClassVar[str] = "use rollout.dialogue 'hermes', or 'tags', which needs no more than a user's message"

    def problems(self) -> list[Problem]:
        """Everything that is wrong with the chat template for this dialogue."""
        return problems_of(self, self._instead)

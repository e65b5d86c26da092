"""Prompts and observations of a search dialogue as token ids of one tokenizer.

The observation is Search-R1's and CalibAdv's published string, so that results compare. Sampled tokens are never
encoded again: only prompts and observations pass through the tokenizer here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

from calibadv.rollout.chat_template import messages_of, rendered
from calibadv.tags import PROMPT_TEMPLATE, RETRY_MESSAGE, TAGS, neutralise
from calibadv.types import Document, IntArray

_MARKUP = re.compile(r"[<\[{|＜].*[>\]}|＞]", re.DOTALL)  # how a control token is written


@dataclass(frozen=True)
class TagsDialogue:
    """Writes prompts and observations as token ids with one tokenizer.

    `prefill` (PreThink, CalibAdv sec. 3.4) ends the prompt and every observation, so that it is conditioned on and
    never trained. `system`: a message before the user's; `date`: the day that the chat template is told, "" = today.
    """

    tokenizer: PreTrainedTokenizerBase
    prefill: str = ""
    template: str = PROMPT_TEMPLATE
    system: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        if "{question}" not in self.template:
            raise ValueError(f"the prompt template must contain '{{question}}', got {self.template!r}")
        if self.tokenizer.chat_template is None:
            name = getattr(self.tokenizer, "name_or_path", "?")
            raise ValueError(
                f"the tokenizer of {name!r} has no chat template: use an instruct model, "
                "or set `chat_template` in its tokenizer_config.json"
            )

    @cached_property
    def _control_tokens(self) -> tuple[str, ...]:
        """Special tokens and added ones that look like one (`<tool_call>`); an added word is a word of its field."""
        added = self.tokenizer.added_tokens_decoder.values()
        names = {str(token) for token in added if token.special or _MARKUP.fullmatch(str(token).strip())}
        names |= set(self.tokenizer.all_special_tokens)
        tags = {f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/")}
        return tuple(sorted((name for name in names - tags if name), key=len, reverse=True))

    def prompt_text(self, question: str) -> str:
        """The messages in the model's chat template, the generation prompt and the prefill, as text.

        A template that ends the generation prompt with the prefill itself is not given a second one.
        """
        content = self.template.replace("{question}", neutralise(question, self._control_tokens))
        text = rendered(self.tokenizer, messages_of(content, self.system), opened=True, date=self.date)
        return text if self.prefill and text.rstrip().endswith(self.prefill) else f"{text}{self.prefill}"

    def prompt_ids(self, question: str) -> IntArray:
        """Token ids [P] of `prompt_text`."""
        return self._encode(self.prompt_text(question))

    def observation_ids(self, documents: Sequence[Document], max_tokens: int) -> IntArray:
        """Token ids [O <= max_tokens] of the documents between information tags, then the prefill.

        Too long a body is cut at its end; the closing tag always stays.
        """
        open_text, close_text = "\n\n<information>", f"</information>\n\n{self.prefill}"
        body = "".join(
            f"Doc {i}(Title: {self._clean(doc.title)}) {self._clean(doc.text)}\n"
            for i, doc in enumerate(documents, start=1)
        )
        whole = self._encode(f"{open_text}{body}{close_text}")
        if len(whole) <= max_tokens:
            return whole
        head, tail = self._encode(open_text), self._encode(close_text)
        room = max_tokens - len(head) - len(tail)
        if room < 0:
            raise ValueError(f"an observation needs at least {len(head) + len(tail)} tokens, the limit is {max_tokens}")
        return np.concatenate([head, self._encode(body)[:room], tail])

    def retry_ids(self) -> IntArray:
        """Token ids of Search-R1's correction after a void turn (`on_void_turn = "retry"`), then the prefill."""
        return self._encode(f"{RETRY_MESSAGE}{self.prefill}")

    def text(self, ids: IntArray) -> str:
        """The text of sampled ids, for reading and parsing only."""
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def _clean(self, text: str) -> str:
        return neutralise(" ".join(text.split()), self._control_tokens)

    def _encode(self, text: str) -> IntArray:
        text = text.encode("utf-8", "replace").decode()  # JSON may hold half a surrogate pair, which no tokenizer takes
        return np.asarray(self.tokenizer.encode(text, add_special_tokens=False), dtype=np.int64)

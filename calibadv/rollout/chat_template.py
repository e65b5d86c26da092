"""What a model's chat template makes of a dialogue's first message, and every reason not to train or ask with it.

The template is run once a rollout, over the prompt; turns and observations follow as tokens. Train, evaluate and the
doctor ask the same `problems`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

Message = Mapping[str, Any]
NONE: Mapping[str, Any] = MappingProxyType({})
ERRORS = (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError)  # of templates on our messages
OPENS = "<think>"
_ASKED, _THOUGHT, _SAID, _NEXT = "Lisbon", "Nairobi", "Quito", "Oslo"
_EARLIER = (
    {"role": "user", "content": _ASKED},
    {"role": "assistant", "content": f"<think> {_THOUGHT} </think><answer> {_SAID} </answer>"},
    {"role": "user", "content": _NEXT},
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a template, and what to do; `fatal`: no prompt can be made with it, or none that is right."""

    said: str
    remedy: str
    fatal: bool

    def __str__(self) -> str:
        return f"{self.said}: {self.remedy}"


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    opened: bool = False,
    date: str = "",
    arguments: Mapping[str, Any] = NONE,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The messages in the tokenizer's chat template, as text; with the assistant's message `opened`.

    `date` (2026-11-28): what the template's clock says; "" is today. `arguments`: what else the template is given;
    `tools`: JSON schemas. One of `ERRORS` where the template refuses.
    """
    given = [dict(message) for message in messages]
    template = _pinned(str(tokenizer.get_chat_template()), date) if date else None
    return str(
        tokenizer.apply_chat_template(
            given,
            tools=[dict(tool) for tool in tools] or None,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=opened,
            **arguments,
        )
    )


def _pinned(template: str, date: str) -> str:
    """The template, written so that it is another one for every day, with its clock stopped on that day.

    What is given to a template must be plain data, which a clock is not: it is set on the compiled one, which
    transformers keeps by its text.
    """
    dated = f"{{# {date} +#}}{template}"
    _compile_jinja_template(dated).globals["strftime_now"] = datetime.fromisoformat(date).strftime
    return dated


def parts_at(first: str, second: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def messages_of(content: str, system: str = "") -> list[Message]:
    """A dialogue's messages: the system's, where there is one, and the user's."""
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": content}]


def problems(
    tokenizer: PreTrainedTokenizerBase, *, system: str = "", prefill: str = "", arguments: Mapping[str, Any] = NONE
) -> list[Problem]:
    """Everything that is wrong with the chat template for a dialogue in tags with that system message and prefill."""
    messages = messages_of(_ASKED, system)
    try:
        closed, text = (rendered(tokenizer, messages, opened=opened, arguments=arguments) for opened in (False, True))
    except ERRORS as error:
        return [_refuses(tokenizer, system, error)]
    found = []
    if missing := [name for name, part in (("user", _ASKED), ("system", system.strip())) if part not in text]:
        said = f"the chat template does not write the {' and the '.join(missing)} message"
        remedy = "use the model's own template" if "user" in missing else "set rollout.system to ''"
        found.append(Problem(said, remedy, fatal=True))
    if not text.startswith(closed):
        remedy = "use the model's own template: with add_generation_prompt it must only add text at the end"
        found.append(Problem("the chat template changes what stands before the generation prompt", remedy, fatal=False))
    elif text == closed:
        said = "the chat template has no generation prompt: the policy goes on with the user's message"
        found.append(Problem(said, "use a template that heeds add_generation_prompt", fatal=False))
    if text.rstrip().endswith(OPENS) and prefill != OPENS:
        said = f"the chat template itself opens a think ({text[-20:]!r}), and no first turn has a <think> of its own"
        remedy = (
            "use a method with PreThink (method.name 'calibadv' with method.params.pre_think true), which takes it for "
            "its prefill, or take <think> out of the template's end"
        )
        found.append(Problem(said, remedy, fatal=True))
    if lost := _lost(tokenizer, system):
        said = f"the chat template drops {lost} of earlier turns"
        remedy = (
            "rollouts are whole, for a rollout passes through the template once, as its prompt; do not pass a finished "
            "dialogue through it, which would show the policy another text than it was trained on"
        )
        found.append(Problem(said, remedy, fatal=False))
    return found


def _refuses(tokenizer: PreTrainedTokenizerBase, system: str, error: Exception) -> Problem:
    """The problem of a template that raises: whether a system message, or none, would do."""
    try:
        rendered(tokenizer, messages_of(_ASKED, "" if system else "You are a helpful assistant."), opened=True)
    except ERRORS:
        said = f"the chat template cannot write a user's message ({error})"
        return Problem(said, "use the model's own template, or an instruct model", fatal=True)
    if system:
        return Problem(f"the chat template takes no system message ({error})", "set rollout.system to ''", fatal=True)
    said = f"the chat template insists on a system message ({error})"
    return Problem(said, "set rollout.system, e.g. 'You are a helpful assistant.'", fatal=True)


def _lost(tokenizer: PreTrainedTokenizerBase, system: str) -> str:
    try:
        text = rendered(tokenizer, [*messages_of("", system)[:-1], *_EARLIER], opened=True)
    except ERRORS:  # of one turn only
        return ""
    if _ASKED not in text or _SAID not in text:
        return "all"
    return "the thinking" if _THOUGHT not in text else ""

"""What a client may ask, in OpenAI's two shapes. What would change the answer and cannot be kept to is refused."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from calibadv.config.serve import ServeConfig
from serve.agent.news import Asked

SEED = 2**48  # seeds are below


class BadRequest(ValueError):
    """A request that is refused, by the field that is at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def _not_kept(value: Any) -> Any:
    if value in (None, False, "", [], {}, 0, "none", "auto"):
        return value
    raise ValueError("this agent answers in its own way, with its own prompt, search and limits: leave it out")


NotKept = Annotated[Any, AfterValidator(_not_kept)]
"""A parameter that would have to change the answer and cannot: only its neutral values are taken."""


def _plain(value: Any) -> Any:
    return value if isinstance(value, dict) and value.get("type") == "text" else _not_kept(value)


Format = Annotated[Any, AfterValidator(_plain)]
"""The form of an answer's text: text as it comes alone is taken."""
Ignored = Any
"""A parameter that changes no answer."""
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=SEED)]


class Part(BaseModel):
    """A part of a message. Only text is read."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text", "input_text", "output_text"]
    text: str


class Message(BaseModel):
    """A message of either API."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    stream: bool = False
    temperature: Temperature | None = None
    """0, or left out: greedy, as an evaluation asks."""
    top_p: TopP | None = None
    seed: Seed | None = None
    tools: NotKept = None
    tool_choice: NotKept = None
    user: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    stream_options: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    parallel_tool_calls: Ignored = None


class TextForm(BaseModel):
    """`text` of a Responses request. How long an answer is to be is ignored, as how long is thought."""

    model_config = ConfigDict(extra="ignore")

    format: Format = None


class ResponsesRequest(_Request):
    """The body of `POST /v1/responses`."""

    input: str | list[Message]
    instructions: NotKept = None
    previous_response_id: NotKept = None
    conversation: NotKept = None
    prompt: NotKept = None
    background: NotKept = None
    max_output_tokens: NotKept = None
    max_tool_calls: NotKept = None
    top_logprobs: NotKept = None
    include: Ignored = None
    reasoning: Ignored = None
    text: TextForm | None = None
    truncation: Ignored = None


class ChatRequest(_Request):
    """The body of `POST /v1/chat/completions`."""

    messages: list[Message]
    n: Literal[1] | None = None
    max_tokens: NotKept = None
    max_completion_tokens: NotKept = None
    stop: NotKept = None
    logit_bias: NotKept = None
    logprobs: NotKept = None
    top_logprobs: NotKept = None
    frequency_penalty: NotKept = None
    presence_penalty: NotKept = None
    response_format: Format = None
    reasoning_effort: Ignored = None

    @property
    def wants_usage(self) -> bool:
        return isinstance(self.stream_options, dict) and self.stream_options.get("include_usage") is True


class FeedbackRequest(BaseModel):
    """The body of `POST /v1/feedback`."""

    model_config = ConfigDict(extra="forbid")

    response_id: Annotated[str, Field(max_length=100)]
    rating: Literal["up", "down"]
    comment: Annotated[str, Field(max_length=4000)] = ""


def asked(request: ResponsesRequest | ChatRequest, settings: ServeConfig) -> Asked:
    """The question of a request and how it is sampled. `BadRequest` for what the agent was not trained for."""
    if isinstance(request, ChatRequest):
        text = question_text(request.messages, settings.conversation, "messages")
    elif isinstance(request.input, str):
        text = question_text([Message(role="user", content=request.input)], settings.conversation, "input")
    else:
        text = question_text(request.input, settings.conversation, "input")
    name = "messages" if isinstance(request, ChatRequest) else "input"
    if len(text) > settings.max_question_chars:
        raise BadRequest(
            f"the question has {len(text)} characters, at most {settings.max_question_chars} are read: shorten it", name
        )
    temperature = request.temperature or 0.0
    top_p = request.top_p if temperature and request.top_p is not None else 1.0
    seed = secrets.randbelow(SEED) if request.seed is None else request.seed
    return Asked(text, temperature, top_p, seed, as_written=request.stream)


def question_text(messages: Sequence[Message], conversation: Literal["refuse", "context"], param: str) -> str:
    """The last message, a user's, with what was said before it where the recipe allows that. `BadRequest` otherwise."""
    if any(message.role in ("system", "developer") for message in messages):
        raise BadRequest(
            "the agent has the prompt that it was trained with and takes no system message: leave it out", param
        )
    if not messages or messages[-1].role != "user" or not messages[-1].text.strip():
        raise BadRequest("the last message must be a user's, and a question", param)
    *earlier, last = messages
    if earlier and conversation == "refuse":
        raise BadRequest(
            "this agent was trained on single questions, and a conversation would be answered wrongly without a sign: "
            "send the last question alone, in words that stand by themselves (or serve with --serve.conversation "
            "context)",
            param,
        )
    return "\n".join([*(f"{message.role}: {message.text.strip()}" for message in earlier), last.text.strip()])

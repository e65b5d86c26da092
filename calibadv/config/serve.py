"""How a trained agent is served."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from calibadv.http_client import is_loopback
from calibadv.section import Decides, Local, Processes, Rollouts, Seconds, Section


class ServeConfig(Section):
    """How `calibadv serve` offers the agent over HTTP (docs/serving.md)."""

    decides: ClassVar[Decides] = Decides.PLACE

    host: str = "127.0.0.1"
    """Address that is listened on; another one than loopback needs a token."""
    port: int = Field(8080, ge=1, le=65535)
    """Port of the page and of the API."""
    token_env: str = ""
    """Environment variable that holds the token of all who may ask; "" = everyone who reaches the port."""
    replicas: Processes = 1
    """Engines that answer, at least."""
    max_replicas: int = Field(0, ge=0, le=10**4)
    """Engines at most, started as requests come; 0 = as many as `replicas`."""
    max_concurrent: Rollouts = 64
    """Questions that are answered at the same time; one more gets 503 and a time to come back."""
    timeout_s: Seconds = 120.0
    """Seconds that an answer may take."""
    max_body_kb: int = Field(256, ge=1, le=10**5)
    """KB of a request."""
    max_question_chars: Rollouts = 4000
    """Characters of a question, earlier turns included."""
    conversation: Literal["refuse", "context"] = "refuse"
    """Earlier turns of a conversation: refused, for the agent was trained on single questions, or written before the
    question."""
    feedback: Local[str] = ""
    """File that thumbs and comments are added to; "" = feedback.jsonl beside the runs."""
    trace_share: float = Field(0.0, ge=0, le=1)
    """Share of answers that become traces in MLflow, under their model: times, tokens, ids of documents; 0 = none."""
    trace_text: bool = False
    """Whether these traces have the words too: question, thoughts, queries, passages, answer."""

    @model_validator(mode="after")
    def _open_only_with_a_token(self) -> ServeConfig:
        if not is_loopback(self.host) and not self.token_env:
            raise ValueError(
                f"serve.host = {self.host!r} is open to the network, and serve.token_env names no token: set it to an "
                "environment variable that holds one, or listen on 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _bounds(self) -> ServeConfig:
        if 0 < self.max_replicas < self.replicas:
            raise ValueError(
                f"serve.max_replicas = {self.max_replicas} is below serve.replicas = {self.replicas}: raise it, or set "
                "it to 0"
            )
        if self.max_replicas > max(self.replicas, self.max_concurrent):
            raise ValueError(
                f"serve.max_replicas = {self.max_replicas} engines would never start for serve.max_concurrent = "
                f"{self.max_concurrent} questions at the same time: raise the latter, or ask for fewer engines"
            )
        return self

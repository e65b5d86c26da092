"""A judge on a loopback port: a real HTTP server that speaks OpenAI's chat completions."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, int], tuple[int, str]]
"""(prompt, number of the request from 0) -> HTTP status and body"""


class JudgeServer(ThreadingHTTPServer):
    """Speaks /v1/chat/completions on a loopback port, with `answer` as its model."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Answer = lambda _prompt, _number: (200, reply("VERDICT: 1"))
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append(request)
            self.server.keys.append(self.headers["authorization"])
            self.server.in_flight += 1
            self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
        found = self.path == "/v1/chat/completions"
        status, body = self.server.answer(request["messages"][0]["content"], number) if found else (404, "{}")
        with self.server.lock:
            self.server.in_flight -= 1
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        if body == DRIP:
            while not self.server.closing.wait(0.05):
                self.wfile.write(b" ")
                self.wfile.flush()
        else:
            self.wfile.write(body.encode())

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client that gave up waiting
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass


DRIP = "a reply that never ends"


def reply(text: object, usage: tuple[object, object] | None = None) -> str:
    """`usage`: tokens of the prompt and of the text, as the server counts them."""
    message = {"role": "assistant", "content": text}
    used = {} if usage is None else {"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}
    return json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "judge",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            **used,
        }
    )

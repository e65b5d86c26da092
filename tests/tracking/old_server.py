"""A tracking server of an early MLflow: experiments, runs and metrics over REST, and 404 for all that came later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

_RUN = {"run_id": "r1", "run_uuid": "r1", "experiment_id": "1", "status": "RUNNING", "start_time": 1}
_ANSWERS: dict[str, dict[str, Any]] = {
    "experiments/get-by-name": {"experiment": {"experiment_id": "1", "name": "old"}},
    "experiments/set-experiment-tag": {},
    "runs/create": {"run": {"info": _RUN, "data": {}}},
    "runs/get": {"run": {"info": _RUN, "data": {}}},
    "runs/update": {"run_info": _RUN},
    "metrics/get-history": {},
}


@contextmanager
def old_server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(its address, the metrics that it was sent so far)."""
    metrics: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, asked: dict[str, Any]) -> None:
            path = self.path.partition("?")[0].removeprefix("/api/2.0/mlflow/")
            answer: dict[str, Any] | None = _ANSWERS.get(path)
            if path == "runs/log-batch":
                metrics.extend(asked.get("metrics", []))
                answer = {}
            body = b"<h1>Not Found</h1>" if answer is None else json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", metrics
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

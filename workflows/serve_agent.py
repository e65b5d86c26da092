"""Serve a trained agent: `workflows/serve_agent.py [RUN_OR_MODEL] [--config RECIPE] [--section.key …]`.

RUN_OR_MODEL is a run's folder or its name in runs/, a model's folder, a hub name, models:/NAME/VERSION of MLflow, or
"pocket"; without one the newest run. The agent answers as its run asked it: same engine, dialogue, limits and search. A
page, OpenAI's Responses and chat completions, until Ctrl-C. More: docs/serving.md.
"""

from __future__ import annotations

from calibadv.tracking.starting import loading, say_starting

if __name__ == "__main__":
    say_starting("serve_agent")  # before what takes seconds to import

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from calibadv.config.command_line import KEYS_TOO, parse
from calibadv.evaluation.models import EvaluatedModel, find_models
from calibadv.tracking.run_files import MODEL
from workflows.command import command_parser, run_command
from workflows.runs import RUNS, found_run, newest_run
from workflows.shipped import RECIPES, recipe_file

log = logging.getLogger("workflows.serve_agent")  # also when this file is __main__


def main(arguments: Sequence[str] | None = None, wait: Callable[[], object] | None = None) -> int:
    """0: served until `wait` returned. 130: without it, until Ctrl-C. 2: refused, nothing started."""
    model = parse_command(arguments)
    with serving(model) as url:
        log.info("\n%s answers on %s: open it in a browser; Ctrl-C ends it", model.name, url)
        (wait or threading.Event().wait)()
    return 0


def parse_command(arguments: Sequence[str] | None = None) -> EvaluatedModel:
    """What is to be served. ValueError for what cannot be."""
    parser = command_parser(__doc__, epilog=KEYS_TOO)
    parser.add_argument("model", nargs="?", metavar="RUN_OR_MODEL", help=f"default: the newest run in {RUNS}/")
    parser.add_argument("--config", type=recipe_file, help="a recipe; needed for a model that none of our runs made")
    known, overrides = parse(parser, arguments, intermixed=True)
    given = known.model if known.model is not None else newest_run(MODEL)
    named = found_run(given) or given
    (model,) = find_models([str(named)], known.config, overrides, RECIPES / "pocket.toml")
    return model


@contextmanager
def serving(model: EvaluatedModel) -> Iterator[str]:
    """The address of the agent, which answers. Inside a running Ray that one is used; what was started here is stopped.

    ValueError where the cluster serves an agent at that port, RuntimeError where a part does not start.
    """
    with loading():
        from calibadv.training.inputs import corpus_file
        from serve.agent.application import agent_application
        from serve.app import check_not_running, check_port_free, run_app, stop_search
        from serve.search_client import search_factory
        from workflows.session import ray_of, served_search, serving_cpus
    config, port = model.config, model.config.serve.port
    app, search_app = app_names(port)
    application = agent_application(config, model.name, model.folder, search_factory(config.search, search_app))
    corpus = corpus_file(config)
    with ExitStack() as stack:
        ends = stack.enter_context(ray_of(config, serving_cpus(config)))
        check_not_running(app, f"an agent is served at port {port} of this Ray cluster", "--serve.port")
        check_port_free(config.serve.host, port, "--serve.port")
        log.info("the search app over %s", corpus)
        stack.enter_context(served_search(config, corpus, search_app, stop=not ends))
        if not ends or config.serve.trace_share:  # it still writes traces at its end
            stack.callback(stop_search, app)
        log.info("the engine of %s", model.folder)
        run_app(application, app)
        host = f"[{config.serve.host}]" if ":" in config.serve.host else config.serve.host
        yield f"http://{host}:{port}/"


def app_names(port: int) -> tuple[str, str]:
    """The apps of agent and search. A cluster's agents listen on its head, where one alone has the port."""
    return f"agent-{port}", f"search-agent-{port}"


if __name__ == "__main__":
    sys.exit(run_command(main))

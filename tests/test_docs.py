"""What the pages say can be done: links lead somewhere, commands are accepted, files are made by other commands."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_origin

import pandas as pd
import pytest

import calibadv
from calibadv.config import Config, load_config, to_toml
from calibadv.data.preparation.paper import TESTS
from calibadv.methods import METHODS
from calibadv.pocket import policy_path
from calibadv.tracking.finished_run import Run
from workflows import api, cli

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "calibadv/**/*.md", "serve/*.md", "deploy/*.md", "workflows/**/*.md")
    for path in ROOT.glob(pattern)
)
DEPLOYED = sorted([ROOT / "cluster.yaml", *ROOT.glob("deploy/*.yaml")])
RECIPES = sorted(ROOT.glob("workflows/recipes/*.toml"))
STUDIES = sorted(ROOT.glob("workflows/studies/*.toml"))
SUBCOMMANDS = {
    "prepare_data": ("questions", "paper", "corpus", "from-feedback"),
    "warm_start": ("pocket", "gold"),
    "benchmarks.scaling": ("model", "measure"),
    "benchmarks.retrieval": ("quality", "load", "indexes"),
}
CONFIGURED = {
    "train",
    "compare",
    "evaluate",
    "doctor",
    "benchmarks.chaos",
    "warm_start",
    "serve_agent",
    "benchmarks.serving",
}  # they take --section.key value
OURS = r"(?:[\w./-]*workflows/\w+\.py|benchmarks\.\w+)"  # the latter after python -m
INSTALLED = rf"(?:\.venv/bin/)?calibadv ({'|'.join(cli.COMMANDS)})(?![\w-])"
READERS = re.compile(r"(company|recipe)\.toml|mine\.py:\w+")  # files that the reader writes
BARE = re.compile(r"(?<![\w./-])python3? +(?:-m (?:pytest|serve|benchmarks)|(?:workflows|scripts|deploy|serve)/)")
IN_A_JOB = re.compile(r"(?:-- |\$J |-- \\\n\s*)$")  # there python is the nodes'


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# ---- links -----------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    plain = re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE)
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *$", plain, flags=re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.append(anchor + (f"-{found.count(anchor)}" if anchor in found else ""))
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if re.match(r"\w+://|mailto:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: {name(target)} has no such heading"


def test_a_wrong_anchor_would_be_found() -> None:
    assert "what-is-kept" in anchors(ROOT / "docs" / "resume.md")
    assert "what-was-kept" not in anchors(ROOT / "docs" / "resume.md")


NAMED = re.compile(r"`([a-z_]+(?:/[a-z_]+)*\.py):([A-Za-z_.]+)`")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_that_a_page_names_is_there(page: Path) -> None:
    missing = []
    for file, said in NAMED.findall(read(page)):
        path = next(
            (path for path in (ROOT / file, ROOT / "calibadv" / file, page.parent / file) if path.is_file()), None
        )
        code = read(path) if path is not None else ""
        if not all(re.search(rf"(?:def|class) {part}\b|^{part}\b", code, re.MULTILINE) for part in said.split(".")):
            missing.append(f"{file}:{said}")
    assert missing == []


# ---- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, *RECIPES, *STUDIES, *sorted(ROOT.glob("serve/*.yaml"))], ids=name)
def test_python_is_the_environments_everywhere_but_in_a_job(page: Path) -> None:
    text = read(page)
    bare = [
        text[hit.start() :].splitlines()[0] for hit in BARE.finditer(text) if not IN_A_JOB.search(text[: hit.start()])
    ]
    assert bare == [], "write .venv/bin/python"


@dataclass(frozen=True)
class Command:
    """A command of one of our scripts as a page has it."""

    page: str
    script: str  # a file of workflows/, or benchmarks.NAME
    arguments: tuple[str, ...]
    synopsis: bool  # it says what may stand there, not what does

    def __str__(self) -> str:
        return f"{self.page}: {self.script} {' '.join(self.arguments)}"


def lines(path: Path) -> Iterator[str]:
    """The shell lines of a page's blocks and of its quoted commands, or of a TOML's or YAML's comments, whole."""
    text = read(path)
    if path.suffix == ".md":
        blocks = re.findall(r"^```(?:\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M)
        inline = [said for said in re.findall(r"`([^`\n]+)`", prose) if re.search(f"{OURS}|^{INSTALLED}", said)]
        text = "\n".join([*blocks, *inline])
    else:
        text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
    variables: dict[str, str] = {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if given := re.fullmatch(r"(\w)=(\S+)", line.strip()):
            variables[given[1]] = given[2]
        for variable, value in variables.items():
            line = line.replace(f"${variable} ", f"{value} ")
        if make := re.match(r'make train ARGS="(.*)"', line):
            line = f".venv/bin/python workflows/train.py {make[1]}"
        line = re.sub(f"^{INSTALLED}", lambda hit: f".venv/bin/python workflows/{cli.COMMANDS[hit[1]].module}.py", line)
        if re.match(rf"(\w+=\S* )*(\S*python\S* |.*-- python |\$J python )(-m )?{OURS}", line.strip()):
            yield line.strip()


def commands(path: Path) -> Iterator[Command]:
    for line in lines(path):
        words = shlex.split(line.partition("; ")[0], comments=True)
        at = next(index for index, word in enumerate(words) if re.fullmatch(OURS, word))
        script = words[at] if words[at].startswith("benchmarks.") else Path(words[at]).stem
        yield Command(name(path), script, tuple(words[at + 1 :]), bool(re.search(r"[…\[{|]", " ".join(words))))


COMMANDS = [command for path in (*PAGES, *RECIPES, *STUDIES) for command in commands(path)]


def test_the_commands_were_found() -> None:
    assert len(COMMANDS) > 150
    unconfigured = {"build_index", "explain", "init", "report"}
    assert {command.script for command in COMMANDS} >= CONFIGURED - {"benchmarks.chaos"} | {*SUBCOMMANDS} | unconfigured


def module(script: str) -> str:
    return script if "." in script else f"workflows.{script}"


@cache
def options(script: str, sub: str) -> frozenset[str]:
    """The options that a script says it has; `sub` may be several words."""
    main = importlib.import_module(module(script)).main
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        main([*sub.split(), "--help"])
    return frozenset(re.findall(r"--[\w-]+", said.getvalue()))


def known_key(dotted: str) -> bool:
    """Whether there is such a setting, or such a parameter of a method."""
    section, _, key = dotted.partition(".")
    if dotted.startswith("method.params."):
        return any(
            key.rpartition(".")[2] in method.__kwdefaults__ for method in METHODS.values() if method.__kwdefaults__
        )
    of_section = Config.model_fields.get(section)
    fields = getattr(of_section.annotation, "model_fields", {}) if of_section is not None else {}
    name, of_a_table, _ = key.partition(".")
    return name in fields and (not of_a_table or get_origin(fields[name].annotation) is dict)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_names_a_script_and_options_that_it_has(command: Command) -> None:
    assert (ROOT / f"{module(command.script).replace('.', '/')}.py").is_file()
    subs = SUBCOMMANDS.get(command.script, ())
    sub = next((word for word in command.arguments if word in subs), "")
    assert bool(sub) == bool(subs) or command.synopsis or not command.arguments, f"one of {subs} must follow"
    if subs and not sub:
        return
    if "--from" in command.arguments:  # another parser: questions that are written, not read
        sub = f"{sub} --from CORPUS"
    for word in command.arguments:
        option = re.sub(r"[\[\]…,]", "", word).partition("=")[0]
        if not option.startswith("--") or option in ("--", "--section.key"):
            continue
        if "." in option:
            assert command.script in CONFIGURED or "--from" in sub, f"{command.script} takes no settings"
            assert known_key(option[2:]), f"there is no {option}"
        else:
            assert option in options(command.script, sub), f"{command.script} has no {option}"


def is_whole(command: Command) -> bool:
    """Whether every setting is meant as it stands: nothing in capitals to put one's own in, but a model's folder."""
    return not command.synopsis and not any(
        re.fullmatch(r"[A-Z]{2,}[A-Z_]*|<\w+>", word) and word != "FOLDER" for word in command.arguments
    )


@pytest.mark.parametrize(
    "command",
    [
        command
        for command in COMMANDS
        if command.script == "train"
        and "--resume" not in command.arguments
        and is_whole(command)
        and not any(map(READERS.fullmatch, command.arguments))
    ],
    ids=str,
)
def test_the_settings_of_every_training_command_are_accepted(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from workflows.train import parse

    monkeypatch.chdir(ROOT)
    parse(command.arguments)


class OnPaper:
    """`calibadv` for the page's code: what is given is checked as its functions check it, and nothing is started."""

    def __init__(self, run: Run) -> None:
        self.run, self.called = run, list[str]()

    def train(self, recipe: str, **given: Any) -> Run:
        inspect.signature(api.train).bind(recipe, **given)
        config = api.config_of(recipe, api.settings_of(given))
        assert (config.run_name, config.run.steps) == ("from-python", 2)
        self.called.append("train")
        return self.run

    def evaluate(self, *args: Any, **given: Any) -> pd.DataFrame:
        values = inspect.signature(api.evaluate).bind(*args, **given)
        values.apply_defaults()
        plan = api.plan_of(**values.arguments)
        self.called.append("evaluate")
        return pd.DataFrame({"model": [model.name for model in plan.models]})


def test_what_is_done_from_python_can_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's code over a run that is there: names, arguments and what is read of the answers."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "from-python"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(load_config(ROOT / "workflows" / "recipes" / "pocket.toml")))
    (folder / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5, "eval/f1": 0.25}\n')
    (folder / "model").symlink_to(policy_path())
    page, paper = read(ROOT / "docs" / "python.md"), OnPaper(Run(folder))
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    scope: dict[str, Any] = {"calibadv": paper}
    for block in blocks:
        exec(block.removeprefix("import calibadv\n"), scope)
    assert paper.called == ["train", "evaluate"]
    assert scope["figures"]["model"].tolist() == ["pocket", "from-python"]
    assert set(re.findall(r"`calibadv\.(\w+)", page)) <= set(calibadv.__all__)
    named = set(re.findall(r"`run\.(\w+)`", page))
    assert len(named) == 6
    assert all(isinstance(getattr(Run, name), property) for name in named)


# ---- files -----------------------------------------------------------------------------------------------------------

DATA = re.compile(r"(?<![\w/.-])(?:/mnt/calibadv/)?data/[\w.*/-]*\w|(?<=/mnt/calibadv/)data/[\w./-]*\w")
PAPERS = {"train.parquet", "test.parquet", *(f"test/{each.dataset}.parquet" for each in TESTS)}


def made(command: Command) -> Iterator[str]:
    """The data files that a command writes."""
    given = [word for word in command.arguments if not word.startswith("--")]
    if command.script == "prepare_data" and given[0] == "paper" and len(given) > 1:
        yield from (f"{given[1]}/{file}" for file in PAPERS)
    elif command.script == "prepare_data" and given[0] in ("questions", "corpus", "from-feedback") and len(given) > 2:
        yield given[2]
        if "--hold-out" in command.arguments:
            yield given[2].replace(".parquet", "-held-out.parquet")
    elif command.script == "build_index" and "--link" in command.arguments:
        yield command.arguments[command.arguments.index("--link") + 1]


MADE = {file for command in COMMANDS if not command.synopsis for file in made(command)}


@pytest.mark.parametrize("path", [*PAGES, *DEPLOYED, *RECIPES, *STUDIES], ids=name)
def test_every_data_file_that_is_named_is_one_that_a_command_makes(path: Path) -> None:
    named = {hit.group(0) for hit in DATA.finditer(read(path)) if not hit.group(0).endswith(".py")}
    folders = {str(parent) for file in MADE for parent in Path(file).parents}
    assert named - MADE - folders - {"/mnt/calibadv/data"} == set()


def test_an_invented_file_would_be_found() -> None:
    assert "data/test/hotpotqa.parquet" in MADE
    assert "/mnt/calibadv/data/wiki-18.index" in MADE
    assert DATA.findall("--data.train /mnt/calibadv/data/hotpotqa_2wiki_train.jsonl x") == [
        "/mnt/calibadv/data/hotpotqa_2wiki_train.jsonl"
    ]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.script in CONFIGURED and is_whole(c)], ids=str)
def test_no_command_tests_on_what_it_trains_on(command: Command) -> None:
    given = dict(zip(command.arguments, command.arguments[1:], strict=False))
    assert (
        "--data.train" not in given
        or given["--data.train"] != given.get("--data.test")
        or given["--data.train"] == "pocket"
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=name)
def test_no_recipe_tests_on_what_it_trains_on(recipe: Path) -> None:
    data = load_config(recipe).data
    assert data.train != data.test or data.train == "pocket"

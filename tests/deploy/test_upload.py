"""What `ray job submit --working-dir .` sends: everything that runs, and no data, results or environments."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from tests.deploy.files import ROOT

LARGE = ("data/wiki-18.jsonl", "runs/a/model/model.safetensors", ".cache/index.npy", ".venv/lib/torch.so", "mlflow.db")


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], int]:
    """The names in the package that Ray makes of a used checkout, and the package's bytes."""
    base = tmp_path_factory.mktemp("upload")
    checkout = base / "checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, checkout / name)
    for name in LARGE:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(b"large")
    package = base / "package.zip"
    create_package(
        str(checkout), package, include_gitignore=True, excludes=get_runtime_env_default_excludes(), logger=None
    )
    with zipfile.ZipFile(package) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}, package.stat().st_size


def test_all_code_recipes_and_the_pocket_policy_are_sent(sent: tuple[set[str], int]) -> None:
    names, _ = sent
    for folder in ("calibadv", "serve", "workflows"):
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert {name for name in files if "__pycache__" not in name} <= names
    assert {"calibadv/pocket/policy/model.safetensors", "workflows/recipes/qwen2.5-7b.toml"} <= names


def test_neither_data_nor_results_nor_environments_are_sent(sent: tuple[set[str], int]) -> None:
    names, _ = sent
    assert not names & set(LARGE)
    assert not any(Path(name).parts[0] in {"tests", "docs", "deploy", ".git"} for name in names)


def test_package_is_far_below_ray_s_limit(sent: tuple[set[str], int]) -> None:
    _, size = sent
    assert size < 20 * 2**20  # Ray refuses 512 MiB; the pocket policy is 8 of ours


def test_dashboard_and_jobs_need_no_extra_beyond_serve() -> None:
    """`ray[default]` is what dashboard, job agent and cluster launcher ask for; `ray[serve]` brings all of it."""
    lines = [Requirement(line) for line in metadata.requires("ray") or []]

    def of(extra: str) -> set[str]:
        return {each.name.lower() for each in lines if each.marker and each.marker.evaluate({"extra": extra})}

    assert of("default") <= of("serve") | of("")
    assert all(metadata.version(name) for name in of("default"))

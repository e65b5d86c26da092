"""What a run needs of its machine and does not find: one line before anything is started, that names what to set."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from calibadv.cluster.places import check_places
from calibadv.config import load_config
from tests.build import configured

NOWHERE = "/proc/nohome"  # not even root can make it


@pytest.mark.parametrize("key", ["run.folder", "run.cache", "checkpoint.uri"])
def test_a_folder_that_cannot_be_written_to_is_named_with_its_key(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("")
    for folder, why in (
        (f"{NOWHERE}/runs", "/proc cannot be written to"),
        (f"{tmp_path}/file/runs", "is not a folder"),
    ):
        config = load_config(None, {"run.folder": tmp_path, "run.cache": tmp_path, key: folder})
        with pytest.raises(ValueError, match=rf"{key} = '{folder}': .*{why}.*; set --{key} to a folder"):
            check_places(config, {})


def test_a_store_of_objects_is_no_folder_and_nothing_is_made(tmp_path: Path) -> None:
    new = tmp_path / "new"
    config = load_config(None, {"run.folder": new, "run.cache": new, "checkpoint.uri": "s3://bucket/x"})
    check_places(config, {})
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_checkout_is_said_of_the_folders_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")
    with pytest.raises(ValueError, match=r"run.folder = 'runs': /proc cannot be written to .*; set --run.folder"):
        check_places(load_config(), {})
    monkeypatch.chdir(tmp_path)
    check_places(load_config(), {})


def test_what_rays_start_needs_is_asked_of_a_local_ray_alone(tmp_path: Path) -> None:
    where = [f"--run.folder={tmp_path}", f"--run.cache={tmp_path}"]
    environment = {"RAY_TMPDIR": NOWHERE}
    with pytest.raises(ValueError, match=f"RAY_TMPDIR = {NOWHERE} cannot hold Ray's session"):
        check_places(configured(*where), environment)
    check_places(configured(*where, "--cluster.address=auto"), environment)
    with pytest.raises(ValueError, match="RAY_AUTH_TOKEN_PATH = /none is not there: write a token there"):
        check_places(configured(*where), {"RAY_AUTH_TOKEN_PATH": "/none"})


def test_a_folder_that_mlflow_cannot_use_is_refused_unless_it_has_a_store_elsewhere(tmp_path: Path) -> None:
    where = [f"--run.folder={tmp_path}/a?b", f"--run.cache={tmp_path}"]
    with pytest.raises(ValueError, match=r"cannot hold '\?'"):
        check_places(configured(*where), dict(os.environ))
    check_places(configured(*where, "--tracking.mlflow_uri=http://127.0.0.1:5000"), {})


def test_a_way_of_weights_whose_package_is_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = [f"--run.folder={tmp_path}", f"--run.cache={tmp_path}"]
    one_sided = configured(*where, "--rollout.weight_transfer=nixl")
    check_places(one_sided, {})
    monkeypatch.setitem(sys.modules, "nixl", None)
    with pytest.raises(ValueError, match=r"pip install 'calibadv\[nixl\]' on every node, or set it to 'auto'"):
        check_places(one_sided, {})
    check_places(configured(*where), {})

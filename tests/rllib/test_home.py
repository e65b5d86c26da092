"""RLlib's own folder of a run: none in the home, which may not be there to write to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from calibadv.rllib.algorithm import CalibAdvAlgorithm


def test_rllibs_folder_is_made_in_rays_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nohome")
    node = SimpleNamespace(get_session_dir_path=lambda: str(tmp_path))
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    algorithm = object.__new__(CalibAdvAlgorithm)
    algorithm._setup_logdir()
    assert [str(path) for path in tmp_path.iterdir()] == [algorithm._logdir]

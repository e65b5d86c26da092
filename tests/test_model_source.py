"""Where a model is found: folders, the hub's cache under every name of its variables, and what offline forbids."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from calibadv.cluster.model_folder import model_folder, model_here
from calibadv.model_source import (
    SMALL_FILES,
    cached_folder,
    find_model,
    has_weights,
    hub_cache,
    is_hub_name,
    loadable,
    offline,
)
from calibadv.pocket import policy_path

VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE")


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A hub cache with a whole acme/tiny."""
    stored = tmp_path / "C" / "models--acme--tiny"
    shutil.copytree(policy_path(), stored / "snapshots" / "abc")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("abc")
    return tmp_path / "C"


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes", "on", "On"])
def test_a_whole_model_in_the_cache_opens_offline_however_that_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, switch: str, value: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv(switch, value)
    assert offline() == f"{switch}={value}"
    snapshot = cache / "models--acme--tiny" / "snapshots" / "abc"
    assert model_folder("acme/tiny") == snapshot
    assert model_here("acme/tiny").whole
    assert loadable("acme/tiny") == str(snapshot)


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off"])
def test_other_values_do_not_forbid_the_hub(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert offline() == ""
    assert loadable("acme/tiny") == "acme/tiny"


@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("HF_HUB_CACHE", "."),
        ("HUGGINGFACE_HUB_CACHE", "."),
        ("TRANSFORMERS_CACHE", "."),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
        ("HOME", ".cache/huggingface/hub"),
    ],
)
def test_the_cache_is_found_by_every_variable(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, below: str
) -> None:
    place = tmp_path / "elsewhere" / below
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(cache, place, dirs_exist_ok=True)
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find_model("acme/tiny").whole


def test_the_first_variable_wins_and_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/b")
    monkeypatch.setenv("TRANSFORMERS_CACHE", "/c")
    assert hub_cache() == Path("/c")
    monkeypatch.setenv("HF_HUB_CACHE", "~/$WHERE")
    monkeypatch.setenv("WHERE", "d")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub_cache() == tmp_path / "d"


def test_what_is_not_whole_is_said_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    snapshot = cache / "models--acme--tiny" / "snapshots" / "abc"
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("../../blobs/gone")
    with pytest.raises(ValueError, match="does not hold all of its weights"):
        model_folder("acme/tiny")
    with pytest.raises(
        ValueError, match=r"'acme/other' is no folder here and not in the hub's cache .*HF_HUB_OFFLINE=1"
    ):
        model_folder("acme/other")


def test_a_whole_model_is_enough_where_the_hub_does_not_answer(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    assert find_model("acme/tiny", SMALL_FILES).whole
    assert "acme/tiny is taken from the hub's cache, for it could not be asked for (no route to host)" in caplog.text
    with pytest.raises(ValueError, match="'acme/other' is no folder here and could not be fetched: no route to host"):
        find_model("acme/other")


def test_a_fetched_model_goes_to_the_cache_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fetch(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(policy_path())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setenv("TRANSFORMERS_CACHE", str(tmp_path))
    assert model_folder("acme/tiny") == policy_path()
    assert (asked["name"], asked["cache_dir"]) == ("acme/tiny", tmp_path)


def test_a_cache_without_refs_gives_its_only_snapshot(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    shutil.rmtree(cache / "models--acme--tiny" / "refs")
    assert cached_folder("acme/tiny") is not None
    (cache / "models--acme--tiny" / "snapshots" / "def").mkdir()
    assert cached_folder("acme/tiny") is None


def test_weights_in_parts_are_whole_when_every_part_is_there(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").write_bytes(b"")
    assert not has_weights(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes(b"")
    assert has_weights(tmp_path)


def test_hub_names_are_told_from_paths() -> None:
    assert is_hub_name("Qwen/Qwen2.5-7B")
    assert not any(is_hub_name(name) for name in ("./a", "/a", "a", "a/b/c", "~/a", "a/", "models:/a@newest", os.sep))

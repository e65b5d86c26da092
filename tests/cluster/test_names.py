"""Names for Ray: plain, and never alike for names that are not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.cluster.names import app_name, ray_name
from calibadv.search.settings import SearchConfig
from serve.app import start_search

TRICKY = [
    "versuch-größe",
    "versuch-gro\u0308ße",
    "实验一",
    "实验二",
    "опыт",
    "🙂",
    "🙃",
    " a",
    "a ",
    "a b",
]
TRICKY += ["a#b", "a:b", "a/b", "%20", "..", "a" * 300, "a" * 301]


@pytest.mark.parametrize("name", ["search-calibadv-seed0", "coordinator-lam=0.5", "search-run_2.1"])
def test_a_plain_name_stays(name: str) -> None:
    assert ray_name(name) == name


def test_every_name_gets_a_plain_one_of_its_own() -> None:
    made = [ray_name(name) for name in [*TRICKY, *map(ray_name, TRICKY)]]
    assert len(set(made)) == len(made)  # not even a run that is called like another's made name
    assert ray_name("search-versuch-größe").startswith("search-versuch-groe-")


def test_a_folder_has_its_own_name_of_an_app_and_has_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, yours = tmp_path / "me" / "größe", tmp_path / "you" / "größe"
    name = app_name("search", mine)
    assert re.fullmatch(r"search-groe-[0-9a-f]{12}", name)
    mine.mkdir(parents=True)
    monkeypatch.chdir(mine.parent)
    assert app_name("search", Path("größe")) == name == app_name("search", mine.parent / "." / "größe")
    others = [app_name("search", yours), app_name("agent", mine), app_name("search", mine, yours)]
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert len({name, *others, app_name("search", mine)}) == 5


def test_a_search_app_that_serve_would_wait_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the search app's name 'größe' is not ASCII"):
        start_search(SearchConfig(), list, tmp_path, name="größe")


@given(st.text(), st.text())
def test_names_are_plain_short_and_differ(one: str, other: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._=+-]{1,80}", ray_name(one))
    assert (ray_name(one) == ray_name(other)) == (one == other)

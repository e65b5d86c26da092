"""Recipes and studies that come with the project, found from any working folder."""

from __future__ import annotations

from pathlib import Path

from calibadv.config import Config, load_config

_HERE = Path(__file__).parent
RECIPES = _HERE / "recipes"


def recipe_file(text: str) -> Path:
    """The recipe that `text` means: a path as it stands, one from the checkout's top, or a name in recipes/."""
    return _found(text, "recipes")


def study_file(text: str) -> Path:
    """The same for studies/."""
    return _found(text, "studies")


def shipped_recipes() -> dict[str, Config]:
    """Every recipe by its file's name: what a report compares a run's settings with."""
    return {path.name: load_config(path) for path in sorted(RECIPES.glob("*.toml"))}


def _found(text: str, folder: str) -> Path:
    given = Path(text)
    named = _HERE / folder / (text if text.endswith(".toml") else f"{text}.toml")
    places = [given] if given.is_absolute() else [given, _HERE.parent / given, named]
    return next((place for place in places if place.is_file()), given)

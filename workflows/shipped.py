"""Recipes and studies that come with the project, found from any working folder."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
RECIPES = _HERE / "recipes"


def recipe_file(text: str) -> Path:
    """The recipe that `text` means: a path as it stands, one from the checkout's top, or a name in recipes/."""
    return _found(text, "recipes")


def study_file(text: str) -> Path:
    """The same for studies/."""
    return _found(text, "studies")


def _found(text: str, folder: str) -> Path:
    given = Path(text)
    named = _HERE / folder / (text if text.endswith(".toml") else f"{text}.toml")
    places = [given] if given.is_absolute() else [given, _HERE.parent / given, named]
    return next((place for place in places if place.is_file()), given)

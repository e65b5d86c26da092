"""Installed packages against the project's own pins, as its package metadata has them (pyproject.toml)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from calibadv.doctor.finding import Finding, failed, passed
from calibadv.doctor.subject import Subject

PROJECT = "calibadv"


def versions(_: Subject) -> Iterator[Finding]:
    """Whether what is installed is what the project asks for: another version fails late, and in odd words."""
    try:
        requirements = [Requirement(line) for line in metadata.requires(PROJECT) or ()]
    except metadata.PackageNotFoundError:
        yield failed("versions", f"{PROJECT} is not installed here", "run `make setup`, or `pip install -e .`")
        return
    yield pinned(requirements, {canonicalize_name(found.name): found.version for found in metadata.distributions()})


def pinned(requirements: Iterable[Requirement], installed: Mapping[str, str]) -> Finding:
    """The finding for what is `installed`, name -> version. What only an extra asks for need not be."""
    wrong = []
    for wanted in requirements:
        found = installed.get(canonicalize_name(wanted.name))
        of_an_extra = wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})
        if found is None and not of_an_extra:
            wrong.append(f"{wanted.name} is not installed")
        elif found is not None and not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} {found}, expected {wanted.specifier}")
    if wrong:
        return failed("versions", "; ".join(dict.fromkeys(wrong)), "`make setup` installs the locked stack")
    return passed("versions", "the installed packages are those that pyproject.toml asks for")

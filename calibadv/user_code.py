"""Code of the user's own that a setting names: `package.module:name` or `path/file.py:name`."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib.abc import InspectLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from calibadv.nearest import did_you_mean
from calibadv.retries import in_words
from calibadv.threads import contained, in_thread


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the user's as it was imported."""

    module: str  # the name that it was given
    file: str
    text: str


_files: dict[str, Source] = {}  # by the file's whole path
_given: dict[str, Any] = {}  # what was handed in, by its reference


def names_code(text: str) -> bool:
    """Whether a setting's value names code, and none of the values that we know."""
    return ":" in text


def load(reference: str, key: str) -> Any:
    """What `reference` names; the same object each time in a process. ValueError, naming the setting `key`, if nothing.

    What the user's module raises while it is imported comes with its own words.
    """
    if reference in _given:
        return _given[reference]
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise ValueError(
            f"{key} = {reference!r}: expected package.module:name or path/file.py:name, e.g. reward.py:reward"
        )
    file = Path(place).absolute() if place.endswith(".py") else None
    if file and not file.is_file():
        raise ValueError(f"{key} = {reference!r}: there is no file {file}")
    try:
        module = importlib.import_module(place) if file is None else _from_file(file)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{key} = {reference!r} cannot be imported: {in_words(error)}") from error
    if not hasattr(module, name):
        raise ValueError(f"{key} = {reference!r}: there is no {name!r} in {place}{did_you_mean(name, dir(module))}")
    return getattr(module, name)


async def called(function: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
    """What the user's function returns; one that is not `async` runs in a thread: it may wait for a server.

    SystemExit, and a cancellation that nobody asked for, are errors of the function: RuntimeError.
    """
    try:
        if inspect.iscoroutinefunction(function):
            return await function(*given, **named)
        result = await in_thread(partial(function, *given, **named))
        return await result if isinstance(result, Awaitable) else result
    except SystemExit as error:
        raise contained(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise contained(error) from error


def called_here(function: Callable[..., Any], /, *given: Any) -> Any:
    """What the user's function returns, in this thread. RuntimeError for SystemExit."""
    try:
        return function(*given)
    except SystemExit as error:
        raise contained(error) from error


def hand_in(thing: Any) -> str:
    """The reference under which `load` gives `thing` in this process: for a function that is at hand."""
    reference = f"{getattr(thing, '__module__', '')}:{getattr(thing, '__name__', type(thing).__name__)}"
    _given[reference] = thing
    return reference


def digest(reference: str, key: str) -> str:
    """A digest of the file or module in which `load` found something, as it was imported; "" of one without a text."""
    load(reference, key)
    place = reference.rpartition(":")[0]
    known = _files.get(str(Path(place).absolute()))
    try:
        text = known.text if known else inspect.getsource(sys.modules[place])
    except (KeyError, OSError, TypeError):  # a notebook's cell, an extension module
        return ""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def sources() -> tuple[Source, ...]:
    """The files that were imported here by their paths: no other process could import them by a name."""
    return tuple(_files.values())


def install(files: tuple[Source, ...]) -> None:
    """Imports files that another process has imported, under the same names and from their text."""
    for source in files:
        if source.module not in sys.modules:
            _run(source)


def _from_file(file: Path) -> ModuleType:
    known = _files.get(str(file))
    if known is None:
        source = Source(f"_calibadv_user_{file.stem}_{len(_files)}", str(file), file.read_text(encoding="utf-8-sig"))
        _run(source)
        _files[str(file)] = known = source
    return sys.modules[known.module]


def _run(source: Source) -> None:
    spec = importlib.util.spec_from_loader(source.module, _FromText(source), origin=source.file)
    assert spec is not None
    spec.has_location = True  # the module has a `__file__`
    module = importlib.util.module_from_spec(spec)
    sys.modules[source.module] = module  # dataclasses and pickle look a module up there
    try:
        _FromText(source).exec_module(module)
    except BaseException:
        del sys.modules[source.module]
        raise


class _FromText(InspectLoader):
    """Imports a module of its text as it was read: where this runs, the file may not be there, or be another by now."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def get_source(self, fullname: str) -> str:  # noqa: ARG002
        return self._source.text

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return self.source_to_code(self._source.text, self._source.file)  # tracebacks name the file

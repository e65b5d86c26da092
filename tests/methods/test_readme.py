"""The methods' README says which parameters there are and what they are by default."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import calibadv.methods
from calibadv.methods import METHODS

README = (Path(calibadv.methods.__file__).parent / "README.md").read_text(encoding="utf-8")


def documented(method: str) -> dict[str, str]:
    """Name -> default, from the table below the line that names the method."""
    table = re.search(rf"^`{method}`[^\n]*:\n\n((?:\|[^\n]*\n)+)", README, re.MULTILINE)
    rows = table.group(1).splitlines()[2:] if table else []
    return dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", "\n".join(rows), re.MULTILINE))


@pytest.mark.parametrize("method", METHODS)
def test_parameters_and_defaults_are_the_functions(method: str) -> None:
    parameters = inspect.signature(METHODS[method]).parameters.values()
    assert documented(method) == {p.name: repr(p.default).replace("'", '"') for p in parameters}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_row_and_its_departures(method: str) -> None:
    assert re.search(rf"^\| `{method}` \|", README, re.MULTILINE)
    assert f"- **`{method}`.**" in README

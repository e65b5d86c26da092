"""Where a run is tracked, and how much of it is delivered: `mlflow.json` in the run folder.

It names the store, the experiment and, once it exists, the run: a resumed training and `catch_up` go on there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from calibadv.files import write_text

STATE = "mlflow.json"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a run is tracked. `uri` None: mlflow.db beside the run folder, wherever that lies by then."""

    experiment: str
    run_name: str
    uri: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    run_id: str | None = None
    experiment_id: str | None = None
    folder: str = ""  # the run folder as it was last written: a copy is told from it
    begun_ms: int | None = None  # Unix time
    offsets: Mapping[str, int] = field(default_factory=dict)  # bytes of the run folder's files that are delivered

    def write(self, folder: Path) -> None:
        """Keep the target in the run folder."""
        here = replace(self, folder=str(folder.resolve()))
        write_text(folder / STATE, json.dumps(asdict(here), indent=2) + "\n")

    @staticmethod
    def read(folder: Path) -> Target | None:
        """The target kept in a run folder; None if that run was never tracked.

        A copy in the original's own store, which is still there, has no run of its own yet: it must not write that one.
        """
        path = folder / STATE
        if not path.exists():
            return None
        target = Target(**json.loads(path.read_text(encoding="utf-8")))
        return target.made_anew() if _is_copy(target, folder) else target

    def cut_to(self, folder: Path) -> Target:
        """The same, after files of the run folder went back to an earlier moment: what they hold is delivered."""
        sizes = {name: (folder / name).stat().st_size if (folder / name).exists() else 0 for name in self.offsets}
        return replace(self, offsets={name: min(offset, sizes[name]) for name, offset in self.offsets.items()})

    def made_anew(self) -> Target:
        """The same of a run that does not exist yet."""
        return replace(self, run_id=None, experiment_id=None, offsets={})


def _is_copy(target: Target, folder: Path) -> bool:
    """Whether the run of `target` is another folder's, which is still there and tracked in the same store."""
    beside = folder.resolve().parent / Path(target.folder).name  # where the folder of runs was copied as a whole
    return bool(target.folder) and any(_owns(target, path, folder) for path in (Path(target.folder), beside))


def _owns(target: Target, original: Path, folder: Path) -> bool:
    if original == folder.resolve() or not (original / STATE).is_file():
        return False  # where it was, or moved
    try:
        if original.samefile(folder):
            return False  # by another path
        kept = json.loads((original / STATE).read_text(encoding="utf-8"))
        one_store = target.uri is not None or original.parent.samefile(folder.resolve().parent)
    except (OSError, ValueError):
        return False
    return one_store and kept.get("run_id") == target.run_id

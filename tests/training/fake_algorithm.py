"""An algorithm whose weights are a number, for what the driver does around one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from calibadv.checkpoints.folders import Draft, Stored
from calibadv.checkpoints.manifest import FileEntry
from calibadv.rllib.learner_state import CheckpointFailed


class FakeAlgorithm:
    """`weights` is the version that they were trained to or taken back to."""

    num_learners = 1
    learner_group = SimpleNamespace(lost=lambda: None, gone=False)

    def __init__(self, version: int = 0) -> None:
        self.version = self.weights = version
        self.lr_scale = 1.0
        self.disk_full = False

    def save_state(self, draft: Draft, *, model: bool) -> dict[str, FileEntry]:
        def write(folder: Path) -> None:
            (folder / "weights.json").write_text(json.dumps(self.weights))

        if self.disk_full:
            raise CheckpointFailed("learner 0 could not write its part (OSError: No space left on device)")
        try:
            return draft.add("shared", write) | (draft.add("model", write) if model else {})
        except Exception as error:  # an answer, as in `save_learners`
            raise CheckpointFailed(f"learner 0 could not write its part ({type(error).__name__}: {error})") from error

    def search_metrics(self) -> dict[str, float]:
        return {"search/calls": float(self.version)}

    def roll_back(self, snapshot: Stored, lr_scale: float) -> None:
        self.weights = snapshot.json("shared/weights.json")
        self.lr_scale *= lr_scale

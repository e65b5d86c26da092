"""The pocket world: a generated encyclopaedia, its questions, and a tiny policy that writes the search format."""

from __future__ import annotations

from calibadv.pocket.files import POCKET, PocketPaths, data_file, policy_path, write_pocket_world

__all__ = ["POCKET", "PocketPaths", "data_file", "policy_path", "write_pocket_world"]

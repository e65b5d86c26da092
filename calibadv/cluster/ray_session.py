"""A Ray for as long as a context lasts: this process's own, a cluster that is up, or a new one of this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from calibadv.cluster.ending import end_ray
from calibadv.cluster.local_ray import init_local_ray


@contextmanager
def ray_at(address: str = "local", *, setting: str = "address", **local: Any) -> Iterator[bool]:
    """Joins the cluster at `address`, or starts one ("local", with `ray.init`'s options `local`), and leaves it again.

    Inside a running Ray (a Tune trial, a test) that one is used and left running. Yields whether the Ray ends with the
    context, and takes along all that runs on it. ValueError, which names the `setting`, where no cluster answers.
    """
    if ray.is_initialized():
        yield False
        return
    if address == "local":
        init_local_ray(**{"log_to_driver": False} | local)
    else:
        _join(address, setting)
    try:
        yield address == "local"
    finally:
        end_ray()


def _join(address: str, setting: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        said = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{setting} = {address!r}: no cluster answers ({said}); start one (`ray start --head`, `ray up "
            "cluster.yaml`), mend the address, or leave it out for a local one"
        ) from error

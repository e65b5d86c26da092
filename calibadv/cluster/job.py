"""Whether this process is the driver of a job that was submitted to a cluster."""

from __future__ import annotations

import os

import ray
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

from calibadv.config import Config


def in_job() -> bool:
    """Whether `ray job submit` runs this process."""
    return RAY_JOB_CONFIG_JSON_ENV_VAR in os.environ


def check_job(config: Config) -> None:
    """ValueError where a Ray of its own would be started beside the cluster that the job was submitted to."""
    if config.cluster.address == "local" and in_job() and not ray.is_initialized():
        raise ValueError(
            "cluster.address = 'local' in a Ray job would start a Ray of its own on this one node, without the GPUs of "
            "the cluster: give --cluster.address auto"
        )

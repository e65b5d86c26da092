"""Whether this process is the driver of a job that was submitted to a cluster."""

from __future__ import annotations

import os

from calibadv.config import Config

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's own name; to import Ray for it takes a dry run half a second


def in_job() -> bool:
    """Whether `ray job submit` runs this process."""
    return JOB in os.environ


def check_job(config: Config) -> None:
    """ValueError where a Ray of its own would be started beside the cluster that the job was submitted to."""
    if config.cluster.address != "local" or not in_job():
        return
    import ray

    if not ray.is_initialized():
        raise ValueError(
            "cluster.address = 'local' in a Ray job would start a Ray of its own on this one node, without the GPUs of "
            "the cluster: give --cluster.address auto"
        )

"""All checks, the cheapest first: what is wrong with the recipe is said before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from calibadv.config import Config
from calibadv.config.risks import risks
from calibadv.doctor.cluster import ClusterFn, cluster
from calibadv.doctor.data import data
from calibadv.doctor.disk import disks
from calibadv.doctor.examine import Check
from calibadv.doctor.finding import Finding, warned
from calibadv.doctor.format_check import well_formed
from calibadv.doctor.hardware import gpu_memory, gpus, ram
from calibadv.doctor.retriever import retriever
from calibadv.doctor.rollout import rollout
from calibadv.doctor.servers import servers
from calibadv.doctor.subject import Subject, model
from calibadv.doctor.tokenizer import tokenizer
from calibadv.doctor.tokens import tokens
from calibadv.doctor.versions import versions


@dataclass(frozen=True)
class Means:
    """What the checks use of higher layers: a cluster as a run opens it."""

    joined: ClusterFn  # starts or joins the run's cluster, and leaves it
    wanted_cpus: Callable[[Config], float]


def checks(means: Means) -> tuple[Check, ...]:
    """Every check with its limit, which is for what hangs: a loaded machine is slow, not ill."""
    return (
        Check("versions", versions),
        Check("tokens", tokens),
        Check("settings", settings),
        Check("servers", servers, 60),
        Check("model", model, 300),
        Check("GPUs", gpus, 60),
        Check("memory", ram, 60),
        Check("GPU memory", gpu_memory, 60),
        Check("disks", disks, 60),
        Check("data", data, 1800),
        Check("tokenizer", tokenizer, 300),
        Check("search", retriever, 600),
        Check("rollout", rollout, 1800),
        Check("format", well_formed, 3600),
        Check("cluster", partial(cluster, joined=means.joined, wanted_cpus=means.wanted_cpus), 600),
    )


def settings(subject: Subject) -> Iterator[Finding]:
    """What is known to go wrong with the recipe's settings, as a run says it too; no line where nothing is."""
    return (warned(risk.name, risk.said, risk.remedy) for risk in risks(subject.config))

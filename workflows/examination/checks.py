"""All checks, the cheapest first: what is wrong with the recipe is said before anything is loaded."""

from __future__ import annotations

from workflows.examination.cluster import cluster
from workflows.examination.data import data
from workflows.examination.disk import disks
from workflows.examination.examine import Check
from workflows.examination.exposure import exposure
from workflows.examination.format_check import well_formed
from workflows.examination.hardware import gpu_memory, gpus, ram
from workflows.examination.ports import ports
from workflows.examination.retriever import retriever
from workflows.examination.rollout import rollout
from workflows.examination.subject import model
from workflows.examination.tokenizer import tokenizer
from workflows.examination.tracking import tracking
from workflows.examination.versions import versions

# A loaded machine is slow, not ill: the limits are for what hangs.
CHECKS = (
    Check("versions", versions),
    Check("secrets", exposure),
    Check("ports", ports, 60),
    Check("model", model, 300),
    Check("GPUs", gpus, 60),
    Check("memory", ram, 60),
    Check("GPU memory", gpu_memory, 60),
    Check("disks", disks, 60),
    Check("data", data, 1800),
    Check("tokenizer", tokenizer, 300),
    Check("MLflow", tracking, 180),
    Check("search", retriever, 600),
    Check("rollout", rollout, 1800),
    Check("format", well_formed, 3600),
    Check("cluster", cluster, 600),
)

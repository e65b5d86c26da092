"""Where a run's processes go."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from calibadv.section import Seconds, Section


class ClusterConfig(Section):
    address: str = "local"  # "auto" joins the running cluster
    logical_cpus: int | None = Field(None, ge=1, le=10**6)  # local only; None = enough for all actors
    cpus_per_engine: float = Field(1.0, ge=0, le=1024)
    gpus_per_engine: float = Field(1.0, ge=0, le=1024)  # for each of its tensor-parallel ranks
    gpu: Literal["", "A100", "H100", "H200", "H20"] = ""  # their kind: a dry run then models a step's time
    stall_after_s: Seconds = 120.0  # a run that waits says for what, each time this has passed
    # Custom resources of Ray nodes: an actor goes only to nodes that have its own, e.g. engines to spot nodes. "" = any
    engines_on: str = ""
    learners_on: str = ""
    search_on: str = ""

    @model_validator(mode="after")
    def _roles_need_a_cluster(self) -> ClusterConfig:
        for name in ("engines_on", "learners_on", "search_on"):
            if getattr(self, name) and self.address == "local":
                raise ValueError(
                    f"cluster.{name} = {getattr(self, name)!r} names a resource of a cluster's nodes, and a local Ray "
                    "has none: set cluster.address 'auto', or leave it empty"
                )
        return self


def role(resource: str) -> dict[str, float]:
    """What an actor asks for so that it goes to nodes with `resource`: too little to count there. {} for ""."""
    return {resource: 0.001} if resource else {}

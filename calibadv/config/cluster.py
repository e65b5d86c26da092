"""Where a run's processes go."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from calibadv.section import Decides, Seconds, Section


class ClusterConfig(Section):
    """Where processes go (docs/cluster.md)."""

    decides: ClassVar[Decides] = Decides.PLACE

    address: str = "local"
    """"local" starts a Ray of its own, "auto" joins the running cluster."""
    logical_cpus: int | None = Field(None, ge=1, le=10**6)
    """CPUs that a local Ray counts; none = enough for all actors."""
    cpus_per_engine: float = Field(1.0, ge=0, le=1024)
    """CPUs that an engine asks of Ray."""
    gpus_per_engine: float = Field(1.0, ge=0, le=1024)
    """GPUs that each tensor-parallel rank of an engine asks of Ray."""
    stall_after_s: Seconds = 120.0
    """A run that waits says for what, each time so many seconds have passed."""
    start_timeout_s: Seconds = 1800.0
    """Seconds that a run's engines may take to be there, all of them; then it ends (docs/cluster.md)."""
    engines_on: str = ""
    """Custom resource of the Ray nodes that engines go to, e.g. of spot nodes; "" = any node."""
    learners_on: str = ""
    """Custom resource of the Ray nodes that learners go to; "" = any node."""
    search_on: str = ""
    """Custom resource of the Ray nodes that search replicas go to; "" = any node."""

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

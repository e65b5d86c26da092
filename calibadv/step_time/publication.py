"""The time in which new weights reach every engine through Ray's object store (calibadv/cluster/weights.py)."""

from __future__ import annotations

from calibadv.memory.shape import ModelShape
from calibadv.step_time.flops import Phase
from calibadv.step_time.gpu import GIGA, TERA, Gpu
from calibadv.step_time.layout import Layout
from calibadv.step_time.work import Assumptions


def publication_phase(shape: ModelShape, gpu: Gpu, layout: Layout, assumed: Assumptions) -> Phase:
    """Packing by rank 0, sending to other nodes, loading by engines; with colocation also the engines' sleep and wake.

    Packing copies each chunk twice (joining its tensors, and into the store), loading once; engines of one node share
    what arrived there and load side by side. Sending is counted as if the learner's node sent to each other one. An
    engine beside a learner on its GPU copies from there instead, in its own memory; packing is done all the same.
    `time/sync_s` of a run is the packing alone: engines load when they next have work, in `time/rollout_s`.
    """
    size = published_bytes(shape, layout)
    learners = layout.learners
    pcie = gpu.pcie_gb_s * GIGA * assumed.links
    bus = gpu.bus_bytes_per_s(learners.number) * assumed.links
    gathered = 4 * shape.parameters * (learners.number - 1) / learners.number if learners.zero == 3 else 0.0
    parts = {
        "gathering": gathered / bus,
        "packing": size / pcie + 2 * size / (assumed.store_gb_s * GIGA),
        "sending to other nodes": 0.0
        if layout.in_place
        else layout.remote_nodes * size / (assumed.transfer_gb_s * GIGA),
        "loading": 2 * size / (gpu.hbm_tb_s * TERA * assumed.bandwidth)
        if layout.in_place
        else size / (assumed.store_gb_s * GIGA) + size / layout.engines.tensor_parallel / pcie,
        "sleep and wake": 2 * size / layout.engines.tensor_parallel / pcie if layout.colocated else 0.0,
    }
    bounds = {
        "gathering": "links between learners",
        "packing": "copies into the object store",
        "sending to other nodes": "the network between nodes",
        "loading": "copies by engines",
        "sleep and wake": "PCIe",
    }
    return Phase(parts, bounds[max(parts, key=parts.__getitem__)])


def published_bytes(shape: ModelShape, layout: Layout) -> int:
    """Bytes of the weights as engines take them; every node with engines gets them once."""
    return shape.parameters * layout.engines.weight_bytes

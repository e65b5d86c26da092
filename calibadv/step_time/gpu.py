"""What a GPU can do at best, as its maker says, and what a group of them can move between its members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from calibadv.memory.plan import NODE_GPUS

TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True, slots=True)
class Gpu:
    """Peaks of one GPU. Links are counted in one direction, and a network link is its share of the node's."""

    name: str
    bf16_tflops: float  # dense
    fp32_tflops: float  # without tensor cores: PyTorch multiplies fp32 in full precision unless told otherwise
    hbm_tb_s: float
    memory_gb: float
    nvlink_gb_s: float
    network_gb_s: float
    pcie_gb_s: float

    def flops_per_s(self, dtype: str) -> float:
        """Peak of matrix products in "bfloat16" or "float32"."""
        return TERA * (self.bf16_tflops if dtype == "bfloat16" else self.fp32_tflops)

    def bus_bytes_per_s(self, gpus: int) -> float:
        """Peak bus bandwidth of a collective over `gpus`: NVLink's, or beyond a node that of all its network links.

        NCCL's rings enter and leave a node by every link at once, so that what is sent between GPUs shares all of them
        (nccl-tests, doc/PERFORMANCE.md, which defines the bus bandwidth too).
        """
        network = NODE_GPUS * self.network_gb_s
        return GIGA * (self.nvlink_gb_s if gpus <= NODE_GPUS else min(self.nvlink_gb_s, network))


# NVIDIA's data sheets of A100 80GB SXM, H100 SXM and H200 SXM, with figures "with sparsity" halved. H20 has no public
# sheet: its figures are those that the trade press printed in 2023 and sellers repeat. A node is taken to have one
# network link a GPU: 400 Gb/s InfiniBand, with A100 200 Gb/s. PCIe is generation 5, with A100 generation 4.
_ALL = (
    Gpu("A100", 312, 19.5, 2.039, 80, nvlink_gb_s=300, network_gb_s=25, pcie_gb_s=32),
    Gpu("H100", 989, 67, 3.35, 80, nvlink_gb_s=450, network_gb_s=50, pcie_gb_s=64),
    Gpu("H200", 989, 67, 4.8, 141, nvlink_gb_s=450, network_gb_s=50, pcie_gb_s=64),
    Gpu("H20", 148, 44, 4.0, 96, nvlink_gb_s=450, network_gb_s=50, pcie_gb_s=64),
)
GPUS: Mapping[str, Gpu] = MappingProxyType({gpu.name: gpu for gpu in _ALL})

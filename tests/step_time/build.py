"""A model, a GPU and a step small enough to compute by hand."""

from __future__ import annotations

from calibadv.memory.shape import ModelShape
from calibadv.step_time.gpu import Gpu
from calibadv.step_time.work import Assumptions, Work

# Embedding and head 10 x 4 each, so that 920 parameters are the layers'. A token's keys and values: 2 x 2 x 4 numbers.
TINY = ModelShape(1000, 4, 16, 2, 1, 4, 10, tied=False)
QWEN_7B = ModelShape(7_615_616_512, 3584, 18_944, 28, 4, 128, 152_064, tied=False)
# 10^12 operations and bytes a second; links of 10^9 bytes a second.
UNIT = Gpu("unit", 1, 0.5, 1, 80, nvlink_gb_s=1, network_gb_s=0.0625, pcie_gb_s=1)
# Everything reaches its peak, and what takes no GPU takes no time.
IDEAL = Assumptions(
    learner_mfu=1,
    engine_mfu=1,
    bandwidth=1,
    links=1,
    engine_step_s=0,
    search_s=0,
    searches_per_s=1e18,
    store_gb_s=1,
    transfer_gb_s=1,
)
# Four rollouts of 10 + 2 x 5 + 20 = 40 tokens, of which 10 are sampled.
WORK = Work(
    questions=2,
    samples=2,
    prompt_tokens=10,
    turns=2,
    action_tokens=5,
    observation_tokens=20,
    longest_turns=3,
    longest_action_tokens=30,
)

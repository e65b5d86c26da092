"""What a CPU learner takes in an update, measured, against what the dry run says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.build import overrides_of

ROOT = Path(__file__).parents[2]
VOCABULARY, TOKENS = 151_936, 2048
# Rollouts of random tokens, so that no beginning is shared: together they fill the token budget. The second update has
# moments. Peaks are of a process by itself: a test before this one would have had its own.
SCRIPT = """
import json, sys
import numpy as np, psutil
from ray.rllib.core.learner.training_data import TrainingData
from calibadv.batching import shard_groups
from calibadv.config import load_config
from calibadv.memory.plan import plan_of
from calibadv.methods.method import StepFacts
from calibadv.rllib.config import CalibAdvConfig
from calibadv.rllib.learner import PolicyLearner
from calibadv.types import Trajectory, Turn, TurnKind
from tests.build import group, peak_bytes

overrides, vocabulary = json.loads(sys.argv[1]), int(sys.argv[2])
config = load_config(None, overrides)
noise, length = np.random.default_rng(0), config.learner.token_budget // 4 - 4

def rollout(reward):
    ids = noise.integers(0, vocabulary, length)
    turn = Turn(TurnKind.ANSWER, ids, np.full(length, -12, np.float32), np.zeros(0, np.int64), "")
    return Trajectory(np.arange(4), (turn,), "Ada", reward, 1.0, reward)

algorithm = CalibAdvConfig().of_learners(config, config.run_method(), config.model.path)
learner = PolicyLearner(config=algorithm, module_spec=algorithm.get_default_rl_module_spec().as_multi_rl_module_spec())
before = psutil.Process().memory_info().rss
learner.build()
for _ in range(2):
    groups = [group(rollout(1.0), rollout(0.0)) for _ in range(2)]
    (shard,) = shard_groups(groups, num_minibatches=1, num_shards=1, seed=0)
    learner.update(TrainingData(episodes=shard), num_minibatches=1, facts=StepFacts(mean_searches=1.0))
print(json.dumps({"measured": peak_bytes() - before, "planned": plan_of(config).model.learner_bytes}))
"""


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process's peak in /proc")
def test_a_cpu_learner_peaks_within_a_tenth_of_the_plan(tmp_path: Path) -> None:
    with torch.device("cpu"):
        shape = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 4}
        model = Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=2, tie_word_embeddings=True, **shape)
        Qwen2ForCausalLM(model).save_pretrained(tmp_path)
    limits = {"max_prompt_tokens": 128, "max_observation_tokens": 128, "max_turn_tokens": 128, "max_tokens": TOKENS}
    given = overrides_of(f"--learner.token_budget={TOKENS}", "--data.questions_per_step=2", "--rollout.samples=2")
    given |= {f"rollout.{key}": value for key, value in limits.items()}
    given |= {"model.path": str(tmp_path), "learner.minibatch_rollouts": 4}
    command = [sys.executable, "-c", SCRIPT, json.dumps(given), str(VOCABULARY)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["planned"] == pytest.approx(found["measured"], rel=0.1)

"""Two learners that share a state by DeepSpeed's ZeRO train, publish and save as one plain learner does.

Two processes make the learners of one test after the other; what goes on from a checkpoint has two new ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import AutoModelForCausalLM

from calibadv.checkpoints.folders import Stored
from calibadv.checkpoints.manifest import Manifest
from calibadv.checkpoints.storage import Kind, Storage
from calibadv.cluster.chunks import chunk_state
from calibadv.cluster.weights import fetch
from calibadv.rllib.learner_group import PolicyLearnerGroup
from calibadv.rllib.learner_state import load_learners, roll_back_learners, save_learners
from calibadv.rllib.ranks import on_rank_zero, rank
from calibadv.rllib.totals import step_metrics
from calibadv.rllib.zero import layer_groups
from calibadv.types import Group
from tests.integration.test_learner_group import GROUPS, anew, learner_group, train
from tests.integration.test_learner_group import model_folder as model_folder
from tests.integration.test_learner_group import two as two

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: learners that share a state are NOT tested")
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]

STEPS = 2  # of three updates each
CHUNK_BYTES = 80 * 1024
# Beside the updates, stage 3 has all its forward passes together: also those of recomputed log-probs and in backward.
TOGETHER = (
    "--learner.gradient_checkpointing=true",
    "--learner.kl_coef=0.05",
    "--rollout.temperature=0.7",
    "--learner.old_logprobs=recompute",
    "--learner.importance_cap=2.0",  # so that the sampler's log-probs count, and a poisoned one too
)
# Eight AdamW steps of a learning rate of 1e-3 move weights by up to 8e-3; sums in another order by a hundredth of it.
# A key's bias has no gradient but rounding errors, of which Adam makes steps of any size.
TOLERANCE = 1e-4


def weights_of(learner: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in learner.published_weights()}


def assert_close(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(ours) == list(expected)
    for name in expected:
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(ours[name], expected[name], rtol=0, atol=TOLERANCE, msg=name)


def poisoned() -> list[Group]:
    """The groups with a log-prob of one rollout that is not a number: one learner has it, in one of three updates."""
    first, *others = GROUPS
    trajectory = first.trajectories[0]
    turn = replace(trajectory.turns[0], logprobs=trajectory.turns[0].logprobs * math.nan)
    broken = replace(trajectory, turns=(turn, *trajectory.turns[1:]))
    return [replace(first, trajectories=(broken, *first.trajectories[1:])), *others]


def check_training(shared: PolicyLearnerGroup, plain: PolicyLearnerGroup) -> None:
    """Loss curve, norms and weights, of healthy steps and of one with an update that is not finite."""
    before = plain.call_all(weights_of)[0]
    for groups in [GROUPS] * STEPS + [poisoned()]:
        totals = train(shared, groups)
        ours, expected = step_metrics(totals), step_metrics(train(plain, groups))
        del expected["learner/signal_share"]  # of moments that are shared out it is not measured
        assert ours == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert {rank["skipped_updates"] for rank in totals} == {expected["learner/skipped_updates"]}
    assert expected["learner/skipped_updates"] == 1
    after = plain.call_all(weights_of)[0]
    assert max(float((after[name] - before[name]).abs().max()) for name in after) > 50 * TOLERANCE
    for theirs in shared.call_all(weights_of):
        assert_close(theirs, after)


def check_publication(shared: PolicyLearnerGroup) -> None:
    packed = shared.call_all(lambda learner: learner.pack_weights(torch.float32))
    assert packed[1] is None
    published, weights = dict(fetch(packed[0])), shared.call_all(weights_of)[1]
    assert list(published) == list(weights)
    assert [name for name in weights if not torch.equal(published[name], weights[name])] == []


def saved(shared: PolicyLearnerGroup, storage: Storage) -> Stored:
    draft = storage.draft(Kind.CHECKPOINT, 1)
    return draft.commit(Manifest(1, 2, save_learners(shared, draft, model=True)))


def test_stage_2_is_one_plain_learner_and_goes_on_from_its_checkpoint(
    two: PolicyLearnerGroup, model_folder: Path, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    storage.prepare()
    plain, shared = learner_group(model_folder, 0), anew(two, model_folder, "--learner.zero=2")
    check_training(shared, plain)
    check_publication(shared)
    stored = saved(shared, storage)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / stored.name / "model")
    here = shared.call_all(weights_of)
    assert [name for name, weight in opened.named_parameters() if not torch.equal(weight, here[0][name])] == []
    train(shared, GROUPS)
    expected = shared.call_all(weights_of)
    roll_back_learners(shared, stored, lr_scale=1.0)
    assert_equal(shared.call_all(weights_of), here)
    with pytest.raises(ValueError, match=r"learner 0 could not load .* is shared out between learners"):
        load_learners(plain, stored)
    resumed = learner_group(model_folder, 2, "--learner.zero=2")
    try:
        load_learners(resumed, stored)
        assert_equal(resumed.call_all(weights_of), here)
        train(resumed, GROUPS)
        assert_equal(resumed.call_all(weights_of), expected)
    finally:
        resumed.shutdown()


def assert_equal(ranks: list[dict[str, torch.Tensor]], expected: list[dict[str, torch.Tensor]]) -> None:
    for ours, others in zip(ranks, expected, strict=True):
        assert [name for name in others if not torch.equal(ours[name], others[name])] == []


@pytest.mark.parametrize("stage", [2, 3])
def test_weights_in_bf16_have_their_gradients_and_no_step_of_theirs_is_lost(
    two: PolicyLearnerGroup, stage: int, model_folder: Path, tmp_path: Path
) -> None:
    """Steps far below a bf16 weight's last digit add up in the shared fp32 copy, which a checkpoint keeps."""
    storage = Storage(str(tmp_path))
    storage.prepare()
    given = ("--learner.dtype=bfloat16", "--learner.lr=1e-5")
    shared_given = (f"--learner.zero={stage}", "--learner.weights=bfloat16")
    plain, shared = learner_group(model_folder, 0, *given), anew(two, model_folder, *given, *shared_given)
    assert shared.call_all(dtypes) == [{"weights": {"torch.bfloat16"}, "buffers": {"torch.float32"}}] * 2
    plain.call_all(rounded)
    before = torch.cat([flat for share in shared.call_all(copies_of) for flat in share])
    ours, expected = step_metrics(train(shared, GROUPS)), step_metrics(train(plain, GROUPS))
    for name in ("learner/loss", "learner/grad_norm", "policy/entropy"):
        assert ours[name] == pytest.approx(expected[name], rel=0.02, abs=2e-3), name
    train(shared, GROUPS)
    check_publication(shared)
    copies = torch.cat([flat for share in shared.call_all(copies_of) for flat in share])
    stored = saved(shared, storage)
    train(shared, GROUPS)
    roll_back_learners(shared, stored, lr_scale=1.0)
    assert torch.equal(torch.cat([flat for share in shared.call_all(copies_of) for flat in share]), copies)
    # Six steps of 1e-5 at most; 0.02, a common weight, has bf16 neighbours 1.2e-4 away.
    assert 1e-5 < float((copies - before).abs().max()) < 1e-4
    assert float((copies != copies.to(torch.bfloat16).float()).float().mean()) > 0.5


def rounded(learner: Any) -> None:
    """Weights and gradients of a plain learner in bf16, which no run has."""
    for weight in learner.policy.language_model.parameters():
        weight.data = weight.data.to(torch.bfloat16)


def dtypes(learner: Any) -> dict[str, set[str]]:
    model = learner.policy.language_model
    buffers = {str(buffer.dtype) for buffer in model.buffers() if buffer.is_floating_point()}
    return {"weights": {str(weight.dtype) for weight in model.parameters()}, "buffers": buffers}


def copies_of(learner: Any) -> list[torch.Tensor]:
    return [flat.clone() for flat in learner.own_state()["weights"]]


def test_stage_3_is_one_plain_learner_and_never_has_the_model_on_one_process(
    two: PolicyLearnerGroup, model_folder: Path, tmp_path: Path
) -> None:
    plain = learner_group(model_folder, 0, *TOGETHER)
    shared = anew(two, model_folder, "--learner.zero=3", *TOGETHER)
    check_training(shared, plain)
    check_publication(shared)
    for seen in shared.call_all(publication):
        assert seen.largest_layer + CHUNK_BYTES < 0.7 * seen.model  # or the bound would say little
        assert seen.held <= seen.largest_layer + seen.kept_whole
        assert max(seen.chunks, default=0) <= CHUNK_BYTES
    check_saving(shared, tmp_path)


@pytest.mark.parametrize("stage", [2, 3])
def test_adapters_train_as_in_one_plain_learner_and_only_they_are_shared_out_and_kept(
    two: PolicyLearnerGroup, model_folder: Path, tmp_path: Path, stage: int
) -> None:
    options = ("--learner.lora_rank=12", "--learner.lora_alpha=48", *TOGETHER)
    plain = learner_group(model_folder, 0, *options)
    shared = anew(two, model_folder, f"--learner.zero={stage}", *options)
    check_training(shared, plain)
    check_publication(shared)
    kept = shared.call_all(lambda learner: sum(flat.numel() for flat in learner.own_state()["weights"]))
    (trained,) = plain.call_all(lambda learner: sum(p.numel() for p in learner.policy.trainable_parameters()))
    assert trained <= sum(kept) < 1.01 * trained  # padded
    check_saving(shared, tmp_path)


def check_saving(shared: PolicyLearnerGroup, folder: Path) -> None:
    """The saved model is the learners' own, and from the saved state they train as they did."""
    storage = Storage(str(folder))
    storage.prepare()
    stored = saved(shared, storage)
    here = shared.call_all(weights_of)
    opened = AutoModelForCausalLM.from_pretrained(folder / stored.name / "model")
    assert [name for name, weight in opened.named_parameters() if not torch.equal(weight, here[0][name])] == []
    train(shared, GROUPS)
    expected = shared.call_all(weights_of)
    load_learners(shared, stored)
    assert_equal(shared.call_all(weights_of), here)
    train(shared, GROUPS)
    assert_equal(shared.call_all(weights_of), expected)


@dataclass(frozen=True)
class Publication:
    """Bytes of weights while a rank publishes, its own share aside."""

    held: int  # at most at any time: gathered weights, and what is still there of those before
    chunks: list[int]
    largest_layer: int
    kept_whole: int  # norms and biases, which stage 3 does not share
    model: int


def publication(learner: Any) -> Publication:
    params = dict(learner.policy.language_model.named_parameters())
    sizes = {name: 4 * weight.ds_numel for name, weight in params.items()}
    given: dict[int, tuple[StorageWeakRef, int]] = {}
    held: list[int] = []

    def watched() -> Iterator[tuple[str, torch.Tensor]]:
        for name, weight in learner.published_weights():
            there = {at: size for at, (storage, size) in given.items() if not storage.expired()}
            there |= {w.data_ptr(): w.untyped_storage().nbytes() for w in params.values() if w.numel()}
            held.append(sum(there.values()))
            given[weight.data_ptr()] = StorageWeakRef(weight.untyped_storage()), weight.untyped_storage().nbytes()
            yield name, weight

    packed = on_rank_zero(rank(), watched(), lambda weights: chunk_state(weights, CHUNK_BYTES, torch.float32))
    chunks = Counter[int]()
    for spec in packed.manifest if packed is not None else ():
        chunks[spec.chunk] += spec.nbytes
    return Publication(
        held=max(held),
        chunks=list(chunks.values()),
        largest_layer=max(sum(sizes[name] for name in group) for group in layer_groups(sizes)),
        kept_whole=sum(sizes[name] for name, weight in params.items() if weight.ds_persist),
        model=sum(sizes.values()),
    )

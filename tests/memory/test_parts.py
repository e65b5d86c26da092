"""GPUs of a configuration: how many, what each part keeps on one, and what is advised where that is too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.config import Config, load_config
from calibadv.data.store_layout import Manifest, write_manifest
from calibadv.memory.advice import advice, remedy
from calibadv.memory.items import GIB, sum_bytes
from calibadv.memory.parts import (
    Part,
    engine_part,
    gpus_wanted,
    index_ram_bytes,
    learner_part,
    parts_of,
    passages,
    search_parts,
)
from calibadv.memory.shape import ModelShape, model_shape
from calibadv.search.manifest import IndexManifest, Origin
from calibadv.search.manifest import write_manifest as write_index_manifest
from tests.build import configured

QWEN_7B = ModelShape(7_615_616_512, 3584, 18_944, 28, 4, 128, 152_064, tied=False)
QWEN_3B = ModelShape(3_085_938_688, 2048, 11_008, 36, 2, 128, 151_936, tied=True)
NODE = ("--rollout.engines=5", "--learner.learners=2", "--learner.gpus_per_learner=1", "--search.num_gpus=1")
LEAN = ("--learner.dtype=bfloat16", "--learner.gradient_checkpointing=true")
E5 = ("--search.encoder=intfloat/e5-base-v2", "--search.reranker=cross", "--search.device=cuda:0")
WIKI = "--data.corpus=data/wiki-18"


def config(*overrides: str) -> Config:
    return configured(*NODE, *LEAN, *E5, *overrides)


def items_of(part: Part) -> dict[str, float]:
    """Bytes by name."""
    return {item.name: item.size_bytes for item in part.items}


def search(*overrides: str) -> dict[str, Part]:
    return {part.name: part for part in search_parts(config(*overrides))}


def test_gpus_are_those_of_engines_learners_and_search() -> None:
    assert gpus_wanted(config()) == 8
    assert gpus_wanted(config("--rollout.tensor_parallel=2")) == 13
    assert gpus_wanted(config("--search.replicas=2", "--search.num_gpus=0.5")) == 8
    assert gpus_wanted(config("--search.shards=3", "--search.shard_replicas=2", "--search.shard_gpus=0.5")) == 11
    assert gpus_wanted(config("--search.url=http://127.0.0.1:8000")) == 7
    assert gpus_wanted(load_config(None, {"cluster.gpus_per_engine": 0})) == 0


def test_a_run_on_cpus_has_no_parts() -> None:
    assert parts_of(load_config(None, {"cluster.gpus_per_engine": 0}), QWEN_3B) == []


def test_an_engines_kv_cache_takes_what_its_share_of_the_card_leaves() -> None:
    part = engine_part(config(), QWEN_7B)
    assert part.gpus == 5
    # Weights 15,231,233,024 + 1,322,778,624 + 2 GiB + a rollout of 939,524,096.
    assert part.total_bytes == 19_641_019_392
    # 0.85 x 0.97 x 80e9 - 19,641,019,392 = 46,318,980,608: 49 more of 939,524,096.
    assert part.spare_bytes(80) == pytest.approx(46_318_980_608)
    assert part.full_rollouts(80) == 50


def test_what_vllm_is_told_beside_our_settings_is_counted() -> None:
    told = ("--rollout.vllm.max_num_batched_tokens=16384", "--rollout.vllm.enforce_eager=true")
    plain, changed = engine_part(config(), QWEN_7B), engine_part(config(*told), QWEN_7B)
    assert changed.total_bytes - plain.total_bytes == 8192 * (4 * 18_944 + 8 * 3584) - GIB
    half = engine_part(config("--rollout.vllm.kv_cache_dtype=fp8"), QWEN_7B)
    assert half.rollout_bytes == plain.rollout_bytes / 2


def test_an_engine_that_cannot_hold_one_rollout_holds_none() -> None:
    part = engine_part(config("--rollout.gpu_memory_utilization=0.25"), QWEN_7B)
    assert part.spare_bytes(80) < 0  # 19.4e9 bytes are its share
    assert part.full_rollouts(80) == 0


def test_a_learner_is_sized_for_the_longest_rollout_even_if_the_budget_is_smaller() -> None:
    small = learner_part(config("--learner.token_budget=4096"), QWEN_3B)
    assert small == learner_part(config(), QWEN_3B)
    assert learner_part(config("--learner.token_budget=32768"), QWEN_3B).total_bytes > small.total_bytes


def test_a_method_with_a_critic_and_a_reference_costs_its_learner_both() -> None:
    plain = learner_part(config(), QWEN_3B)
    ppo = learner_part(config("--method.name=ppo", "--method.params.kl_reward=0.001"), QWEN_3B)
    assert items_of(ppo)["reference model, fp32"] == 4 * QWEN_3B.parameters
    assert items_of(ppo)["weights, fp32"] == 2 * items_of(plain)["weights, fp32"]  # a tied trunk is the whole model
    kl = learner_part(config("--learner.kl_coef=0.001"), QWEN_3B)
    assert kl.total_bytes - plain.total_bytes == 4 * QWEN_3B.parameters


def colocated(*overrides: str) -> Config:
    shares = ("--cluster.gpus_per_engine=0.6", "--learner.gpus_per_learner=0.4", "--rollout.placement=colocated")
    node = ("--rollout.engines=8", "--learner.learners=8", "--learner.zero=3", "--search.num_gpus=0")
    return config(*node, *shares, *overrides)


def test_a_colocated_engine_leaves_the_learner_beside_it_its_state() -> None:
    assert gpus_wanted(colocated()) == 8
    learner, engine = learner_part(colocated(), QWEN_7B), engine_part(colocated(), QWEN_7B)
    assert (learner.gpus, engine.gpus) == (8, 8)
    # A share of 8: weights, AdamW's copy and gradients 4 P / 8 each, moments 8 P / 8, bucket 4 x 2^26, context 2^30;
    # whole: the published bf16 weights, 2 P.
    resting = (20 / 8 + 2) * QWEN_7B.parameters + 4 * 2**26 + 2**30
    assert engine.beside_bytes == sum_bytes(learner.items, resting=True) == resting
    assert items_of(learner)["the engine beside it, asleep"] == 2 * GIB
    assert engine.spare_bytes(80) == pytest.approx(0.15 * 0.97 * 80e9 - resting)  # 85 % for the engine leave too little
    assert engine.spare_bytes(80) < 0
    assert advice(engine, colocated(), QWEN_7B, 80) == {"rollout.gpu_memory_utilization": 0.5}
    heeded = engine_part(colocated("--rollout.gpu_memory_utilization=0.5"), QWEN_7B)
    assert heeded.spare_bytes(80) == pytest.approx(
        min(0.5 * 0.97 * 80e9 - heeded.total_bytes, 0.5 * 0.97 * 80e9 - resting)
    )
    assert heeded.full_rollouts(80) > 0


def test_a_learner_that_engines_read_from_holds_two_versions() -> None:
    stored, read = (learner_part(config(f"--rollout.weight_transfer={way}"), QWEN_3B) for way in ("auto", "nixl"))
    assert read.total_bytes - stored.total_bytes == 2 * 2 * QWEN_3B.parameters  # bf16


def test_a_learner_of_adapters_has_a_frozen_model_and_a_small_state() -> None:
    shape = model_shape("Qwen/Qwen2.5-7B")
    part = learner_part(config("--learner.lora_rank=16", "--learner.kl_coef=0.001"), shape)
    assert items_of(part)["frozen weights, fp32"] == 4 * shape.parameters
    assert items_of(part)["adapters, fp32"] == 4 * 40_370_176
    assert "reference model, fp32" not in items_of(part)
    assert part.spare_bytes(80) > 0 > learner_part(config(), shape).spare_bytes(80)


def test_processes_that_take_half_a_gpu_share_one() -> None:
    whole, half = search(WIKI)["search"], search(WIKI, "--search.replicas=2", "--search.num_gpus=0.5")["search"]
    assert half.gpus == whole.gpus == 1
    assert half.total_bytes == 2 * whole.total_bytes
    assert all(name.startswith("2 x ") for name in items_of(half))


# ---- search ------------------------------------------------------------------------------------------------------


def test_a_flat_index_of_wikipedia_by_hand() -> None:
    items = items_of(search(WIKI)["search"])
    assert items["flat index of 21,015,324 passages"] == 21_015_324 * 768 * 4
    assert items["FAISS's scratch memory"] == 1.5 * GIB  # one for all pieces
    assert items["encoder, fp32"] == 4 * 109_482_240
    assert items["cross-encoder, fp32"] == 4 * 33_360_000


def test_a_corpus_of_unknown_size_leaves_the_index_out() -> None:
    assert passages(config("--data.corpus=mine.jsonl")) is None
    assert set(items_of(search("--data.corpus=mine.jsonl")["search"])) == {
        "encoder, fp32",
        "cross-encoder, fp32",
        "CUDA context, batch of texts",
    }


def test_a_corpus_store_says_its_own_size_whatever_it_is_called(tmp_path: Path) -> None:
    store = tmp_path / "wiki-18"
    store.mkdir()
    assert passages(config(f"--data.corpus={store}")) is None  # no store
    write_manifest(store, Manifest(documents=7, repeated=0, skipped=0, fingerprint="f", sizes={}))
    assert passages(config(f"--data.corpus={store}")) == 7


def test_a_ready_index_decides_its_kind_and_pieces(tmp_path: Path) -> None:
    origin = Origin("c", 10, "e5", "i", "", "", 256, 768)
    write_index_manifest(tmp_path, IndexManifest(origin, "ivfpq", {}, (6, 4)))
    items = items_of(search(WIKI, f"--search.faiss_index={tmp_path}")["search"])
    assert items["ivfpq index of 10 passages"] == 10 * 200
    assert items["FAISS's scratch memory"] == 1.5 * GIB
    write_index_manifest(tmp_path, IndexManifest(origin, "flat", {}, (6, 4)))
    assert index_ram_bytes(config("--search.device=cpu", f"--search.faiss_index={tmp_path}")) == 10 * 4 * 768


@pytest.mark.parametrize(
    ("overrides", "vector_bytes"),
    [
        (("--search.index=hnsw", "--search.replicas=2"), 2 * (4 * 768 + 8 * 32)),
        (("--search.index=hnsw", "--search.device=cuda:0"), 4 * 768 + 8 * 32),  # FAISS has no graph on a GPU
        (("--search.index=fp16", "--search.shards=4", "--search.shard_replicas=3"), 3 * 2 * 768),
        (("--search.index=fp16", "--search.device=cuda:0"), 0),
        (("--search.index=flat",), 0),
        (("--search.index=ivfpq",), 0),
        (("--search.index=fp16", "--search.retriever=bm25"), 0),
        (("--search.index=fp16", "--search.url=http://127.0.0.1:8000"), 0),
        (("--search.index=fp16", "--data.corpus=mine.jsonl"), 0),
    ],
)
def test_an_index_that_cannot_be_mapped_is_held_by_each_process(overrides: tuple[str, ...], vector_bytes: int) -> None:
    assert index_ram_bytes(config(WIKI, "--search.device=cpu", *overrides)) == 21_015_324 * vector_bytes


def test_shards_hold_the_index_and_the_app_holds_the_models() -> None:
    parts = search(WIKI, "--search.shards=4", "--search.shard_gpus=1")
    assert parts["index shard"].gpus == 4
    assert items_of(parts["index shard"])["flat index of 21,015,324 passages"] == 21_015_324 * 768
    assert "flat index of 21,015,324 passages" not in items_of(parts["search"])


@pytest.mark.parametrize("override", ["--search.device=cpu", "--search.url=http://127.0.0.1:8000"])
def test_search_elsewhere_has_no_gpu(override: str) -> None:
    assert search(override) == {}


def test_bm25_has_no_encoder_and_no_index_on_a_gpu() -> None:
    assert set(items_of(search(WIKI, "--search.retriever=bm25")["search"])) == {
        "cross-encoder, fp32",
        "CUDA context, batch of texts",
    }


# ---- advice ------------------------------------------------------------------------------------------------------


def learner_advice(card: float, *overrides: str, shape: ModelShape = QWEN_3B) -> dict[str, object]:
    settings = config(*overrides)
    part = learner_part(settings, shape)
    assert part.spare_bytes(card) < 0
    return advice(part, settings, shape, card)


def test_a_learner_is_first_advised_to_save() -> None:
    plain = ("--learner.dtype=float32", "--learner.gradient_checkpointing=false")
    assert learner_advice(96, *plain) == {"learner.gradient_checkpointing": True}
    assert learner_advice(80, "--learner.token_budget=65536") == {"learner.token_budget": 16_384}


def test_a_learner_that_cannot_save_enough_is_advised_to_share() -> None:
    # 7B: 20 bytes a parameter are 152.3e9, a third of that 50.8e9; 24.1e9 more are not shared: 74.9e9 < 77.6e9.
    assert learner_advice(80, shape=QWEN_7B) == {"learner.zero": 3, "learner.learners": 3}
    three, two = (config("--learner.zero=3", f"--learner.learners={learners}") for learners in (3, 2))
    assert learner_part(three, QWEN_7B).total_bytes == pytest.approx(74.9e9, rel=0.002)
    assert learner_part(three, QWEN_7B).spare_bytes(80) > 0 > learner_part(two, QWEN_7B).spare_bytes(80)
    assert learner_advice(80, "--learner.zero=3", shape=QWEN_7B) == {"learner.learners": 3}


def test_sharing_comes_on_top_of_saving() -> None:
    assert learner_advice(80, "--learner.gradient_checkpointing=false", shape=QWEN_7B) == {
        "learner.gradient_checkpointing": True,
        "learner.zero": 3,
        "learner.learners": 3,
    }


def test_advice_is_said_as_settings() -> None:
    settings = config("--learner.gradient_checkpointing=false")
    said = remedy(learner_part(settings, QWEN_7B), settings, QWEN_7B, 80)
    assert said == "set learner.gradient_checkpointing = true and learner.zero = 3 and learner.learners = 3"


@pytest.mark.parametrize(
    ("overrides", "shape", "said"),
    [
        (("--method.name=ppo",), QWEN_7B, "learner.zero does not share a critic's state"),
        (("--rollout.max_tokens=400000",), QWEN_3B, "a single rollout of full length is too much"),
    ],
)
def test_where_no_setting_is_enough_something_else_is_said(
    overrides: tuple[str, ...], shape: ModelShape, said: str
) -> None:
    settings = config(*overrides)
    part = learner_part(settings, shape)
    assert advice(part, settings, shape, 80) == {}
    assert said in remedy(part, settings, shape, 80)


def test_an_engine_is_advised_as_many_ranks_as_it_takes() -> None:
    settings = config("--rollout.gpu_memory_utilization=0.25")
    part = engine_part(settings, QWEN_7B)
    assert advice(part, settings, QWEN_7B, 80) == {"rollout.tensor_parallel": 2}
    none = config("--rollout.gpu_memory_utilization=0.01")
    assert remedy(engine_part(none, QWEN_7B), none, QWEN_7B, 80).startswith("lower rollout.max_tokens")


@pytest.mark.parametrize(
    ("overrides", "card", "changes", "said"),
    [
        (
            ("--search.replicas=2", "--search.num_gpus=0.5"),
            80,
            {"search.num_gpus": 1.0},
            "set search.num_gpus = 1",
        ),
        ((), 48, {"search.index": "fp16"}, "build and serve the index as search.index = 'fp16'"),
        ((), 24, {"search.index": "ivfpq"}, "build and serve the index as search.index = 'ivfpq'"),
        ((), 4, {}, "set search.device = 'cpu', or take a smaller encoder"),
    ],
)
def test_search_is_advised_a_gpu_of_its_own_then_a_smaller_index(
    overrides: tuple[str, ...], card: float, changes: dict[str, object], said: str
) -> None:
    settings = config(WIKI, *overrides)
    part = next(search_parts(settings))
    assert part.spare_bytes(card) < 0
    assert advice(part, settings, QWEN_3B, card) == changes
    assert remedy(part, settings, QWEN_3B, card) == said

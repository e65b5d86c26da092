"""The doctor's checks of versions, memory, GPUs, disks and ports, by numbers worked out by hand."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from calibadv.cluster import ray_place
from calibadv.cluster.model_folder import model_here
from calibadv.cluster.servers import Server, servers_of
from calibadv.config import Config, load_config
from calibadv.doctor import disk, hardware, servers, versions
from calibadv.doctor.finding import State
from calibadv.doctor.hardware import Gpu, enough_gpus, enough_ram, fits, parse_gpus, ram_bytes
from calibadv.doctor.subject import Subject
from calibadv.memory.items import GIB, Item
from calibadv.memory.parts import Part, gpus_wanted
from calibadv.memory.plan import ModelSizes
from calibadv.memory.shape import ModelShape
from calibadv.model_source import ModelFolder
from tests.build import overrides_of
from workflows.shipped import RECIPES

PASS, WARN, FAIL = State.PASS, State.WARN, State.FAIL
QWEN_7B = (
    '{"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, '
    '"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": false}'
)


def recipe(*overrides: str) -> Config:
    return load_config(RECIPES / "pocket.toml", overrides_of(*overrides))


# ---- versions ----------------------------------------------------------------------------------------------------

PINS = [Requirement(line) for line in ("ray[data,serve]==2.60.0", 'vllm==0.29.0; extra == "gpu"', "numpy>=2.1")]


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ({"ray": "2.60.0", "numpy": "2.3.0"}, ""),
        ({"ray": "2.60.0", "numpy": "2.3.0", "vllm": "0.29.0+cu130"}, ""),
        ({"ray": "2.60.0"}, "numpy is not installed"),
        ({"ray": "2.59.0", "numpy": "2.3.0", "vllm": "0.28.0"}, "ray 2.59.0, expected ==2.60.0; vllm 0.28.0, expected"),
    ],
)
def test_what_is_installed_is_held_to_the_pins_and_what_an_extra_asks_for_where_it_is(
    installed: dict[str, str], said: str
) -> None:
    finding = versions.pinned(PINS, installed)
    assert (finding.state, said in finding.said) == (FAIL if said else PASS, True)


def test_the_installed_stack_is_the_pinned_one() -> None:
    assert [finding.said for finding in versions.versions(Subject(recipe())) if finding.state is not PASS] == []


# ---- what a recipe needs -----------------------------------------------------------------------------------------

NOTHING = ModelSizes(
    ModelShape(0, 1, 1, 1, 1, 1, 1, tied=True),
    trained_parameters=0,
    weights_bytes=0,
    kv_cache_bytes=0,
    state_bytes=0,
    held_bytes=0,
    reference_bytes=0,
    checkpoint_bytes=0,
    activations_bytes=0,
    head_bytes=0,
)


def test_the_numbers_are_those_of_the_model_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(QWEN_7B)
    assert Subject(recipe(f"--model.path={tmp_path}")).sizes.parameters == 7_615_616_512
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="describes no model that can be built here"):
        _ = Subject(recipe(f"--model.path={tmp_path}")).sizes


def test_gpus_are_counted_over_engines_learners_and_retrievers() -> None:
    assert gpus_wanted(load_config(RECIPES / "qwen2.5-7b.toml")) == 3 * 1 + 4 * 1 + 1 * 1
    assert gpus_wanted(recipe()) == 0
    shards = ("--search.shards=4", "--search.num_gpus=1", "--search.shard_gpus=1", "--search.replicas=2")
    assert gpus_wanted(recipe(*shards)) == 6
    assert gpus_wanted(recipe(*shards, "--search.url=http://127.0.0.1:1")) == 0


def test_memory_of_a_machine_is_the_sum_of_what_runs_on_it() -> None:
    sizes = replace(NOTHING, weights_bytes=GIB, held_bytes=8 * GIB, activations_bytes=2 * GIB)
    config = recipe("--rollout.engines=3", "--rollout.kv_cache_gb=2", "--search.replicas=2")
    # Three engines of 1 + 1 + 2, a learner of 1 + 10, two retrievers of 1, two versions of the weights, the base of 2.
    assert ram_bytes(config, sizes) == (3 * 4 + 11 + 2 + 2 + 2) * GIB
    shape = replace(NOTHING.shape, parameters=2**30)  # 4 GiB in fp32: a CPU's learner held as much already
    sizes = replace(sizes, shape=shape, reference_bytes=4 * GIB)
    assert ram_bytes(config, sizes) == (3 * 4 + 15 + 2 + 2 + 2) * GIB
    gpus = ("--cluster.gpus_per_engine=1", "--learner.gpus_per_learner=1", "--learner.minibatch_rollouts=40")
    on_gpus = recipe("--rollout.engines=3", "--learner.learners=2", *gpus)
    # Three engines of 1, two learners of 1 that read policy and reference, a retriever.
    assert ram_bytes(on_gpus, sizes) == (3 * 1 + 2 * (1 + 4 + 4) + 1 + 2 + 2) * GIB
    with_critic = recipe("--rollout.engines=3", "--learner.learners=2", *gpus, "--method.name=ppo")
    assert ram_bytes(with_critic, sizes) == ram_bytes(on_gpus, sizes) + 2 * 4 * shape.trunk
    whole, mapped = (recipe("--data.corpus=wiki-18", f"--search.index={kind}") for kind in ("fp16", "flat"))
    assert ram_bytes(whole, sizes) == ram_bytes(mapped, sizes) + 21_015_324 * 2 * 384


@pytest.mark.parametrize(("free", "state"), [(10.0, PASS), (9.9, WARN), (7.7, WARN), (7.6, FAIL)])
def test_an_estimate_that_is_out_by_a_little_only_warns(free: float, state: State) -> None:
    assert enough_ram(10.0, free).state is state


def test_a_containers_limit_is_the_memory_that_counts(tmp_path: Path) -> None:
    for name, value in (("memory.max", 3 * 2**30), ("memory.current", 2 * 2**30)):
        (tmp_path / name).write_text(f"{value}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {2**29}\n")
    assert hardware.available_bytes(tmp_path) == 1.5 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.available_bytes(tmp_path) > 0


# ---- GPUs --------------------------------------------------------------------------------------------------------

H20 = Gpu("NVIDIA H20", 96 * GIB, 95 * GIB, "580.65")


def test_gpus_are_read_from_the_drivers_lines() -> None:
    text = "0, GPU-a1, NVIDIA H200, 143771, 143000, 580.82.07\n1, GPU-b2, Odd, name, [N/A], 10, 1\n\nFailed\n"
    assert parse_gpus(text) == (
        Gpu("NVIDIA H200", 143771 * 2**20, 143000 * 2**20, "580.82.07", 0, "GPU-a1"),
        Gpu("Odd, name", 0.0, 10 * 2**20, "1", 1, "GPU-b2"),
    )


@pytest.mark.parametrize(
    ("named", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("NoDevFiles", []),
        ("-1", []),
        ("2, 0", [2, 0]),
        ("1,7,0", [1]),  # CUDA ends the list at the first that is none
        ("GPU-b,GPU-a1", [1, 0]),
        ("MIG-5f", [0]),
    ],
)
def test_only_the_gpus_that_the_environment_lets_ray_have_are_here(
    named: str | None, indices: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{i}, GPU-{uuid}, H20, 97871, 97871, 580.65\\n" for i, uuid in enumerate(("a1", "b2", "c3")))
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{rows}'\n")
    (tmp_path / "nvidia-smi").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [gpu.index for gpu in hardware.gpus_here()] == indices
    assert all(bool(gpu.total_bytes) is (named != "MIG-5f") for gpu in hardware.gpus_here())


@pytest.mark.parametrize(("needed", "here", "state"), [(8, 8, PASS), (8, 7, FAIL), (1, 0, FAIL), (0.5, 1, PASS)])
def test_fewer_gpus_than_the_recipe_asks_for_fail(needed: float, here: int, state: State) -> None:
    assert enough_gpus(needed, [H20] * here).state is state


def test_memory_that_somebody_else_holds_is_warned_of() -> None:
    assert hardware.idle_gpus([H20, H20]).state is PASS
    finding = hardware.idle_gpus([H20, Gpu("NVIDIA H20", 96 * GIB, 60 * GIB, "580.65", index=1)])
    assert (finding.state, finding.said) == (WARN, "memory is taken on GPU 1: 36.0 GiB")


def test_a_part_fits_a_gpu_or_fails_with_what_to_change() -> None:
    part = Part("engine", 1, (Item("weights", 14e9), Item("KV cache of one full rollout", 1e9)), 0.8, 1e9)
    found = fits(part, 20.0, "")  # 0.8 x 0.97 x 20e9 = 15.52e9
    assert (found.name, found.state, "room for 1 full rollouts" in found.said) == ("engine memory", PASS, True)
    found = fits(part, 19.0, "set rollout.tensor_parallel = 2")  # 14.744e9
    assert (found.state, found.remedy) == (FAIL, "set rollout.tensor_parallel = 2")
    learner = Part("learner", 1, (Item("state", 70e9),))
    assert (fits(learner, 80.0, "").state, fits(learner, 72.0, "share it").state) == (PASS, FAIL)  # 70 of 69.84


def test_a_recipe_for_gpus_on_a_machine_without_one_fails() -> None:
    (finding,) = hardware.gpus(Subject(recipe("--cluster.gpus_per_engine=1")), lambda: ())
    assert (finding.state, finding.said) == (FAIL, "0 here, 2 needed")
    (joined,) = hardware.gpus(Subject(recipe("--cluster.gpus_per_engine=1", "--cluster.address=auto")))
    assert (joined.state, "counted below" in joined.said) == (PASS, True)


# ---- disks -------------------------------------------------------------------------------------------------------

SIZES = replace(NOTHING, weights_bytes=GIB, checkpoint_bytes=6 * GIB)


@pytest.mark.parametrize(
    ("overrides", "gib"),
    [
        # 6 GiB a kept state, one more of them while it is written. A sentinel that rolls back keeps two.
        (("--checkpoint.every=0",), 0),
        (("--checkpoint.keep_last=2", "--checkpoint.keep_best=false"), 3 * 6),
        (("--checkpoint.keep_last=2",), 4 * 6),
        (("--checkpoint.every=0", "--sentinel.action=rollback"), 3 * 6),
        (("--checkpoint.keep_last=2", "--sentinel.action=rollback"), 6 * 6),
    ],
)
def test_a_run_keeps_as_many_states_as_it_is_told(overrides: tuple[str, ...], gib: float) -> None:
    assert disk.states_bytes(recipe(*overrides), SIZES) == gib * GIB


def test_room_for_checkpoints_is_asked_of_the_disk_that_they_go_to(tmp_path: Path) -> None:
    class Sized(Subject):
        sizes = SIZES

    def asked(uri: str) -> dict[str, str]:
        runs = f"--run.folder={tmp_path / 'runs'}"
        subject = Sized(recipe(runs, "--checkpoint.keep_last=2", f"--checkpoint.uri={uri}"))
        found = {finding.name: finding.said for finding in disk.disks(subject)}
        names = ("disk for runs", "disk for checkpoints")
        return {name: found[name].partition(" free ")[2] for name in names if name in found}

    (tmp_path / "mnt").mkdir()
    # Twice the model of 1 GiB and logs of 1 GiB; four states of 6 GiB.
    here = {"disk for runs": f"at {tmp_path}, about 3.0 GiB needed"}
    assert asked("") == {"disk for runs": f"at {tmp_path}, about 27.0 GiB needed"}
    assert asked("s3://bucket/runs") == here
    there = {**here, "disk for checkpoints": f"at {tmp_path / 'mnt'}, about 24.0 GiB needed"}
    assert asked(f"{tmp_path / 'mnt'}") == asked(f"file://{tmp_path / 'mnt' / 'new'}") == there


def test_room_is_asked_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    finding = disk.room("disk", tmp_path / "runs" / "mine", 0.0)
    assert (finding.state, str(tmp_path) in finding.said) == (PASS, True)
    assert not (tmp_path / "runs").exists()
    assert not list(tmp_path.iterdir())
    assert disk.room("disk", tmp_path, 1e18).state is FAIL


def test_a_folder_that_cannot_be_written_to_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ray_place.tempfile, "TemporaryFile", refuse)
    finding = disk.room("disk", tmp_path, 0.0)
    assert (finding.state, "cannot be written to (Permission denied)" in finding.said) == (FAIL, True)


@pytest.mark.parametrize(("free", "state"), [(2.2, PASS), (2.0, WARN), (0.0, WARN)])
def test_shared_memory_should_hold_two_versions_of_the_weights(free: float, state: State) -> None:
    assert disk.shared_memory(2 * GIB, free * GIB).state is state


@pytest.mark.parametrize(("full", "state"), [(0.94, PASS), (0.95, FAIL)])
def test_a_disk_that_ray_calls_full_fails(tmp_path: Path, full: float, state: State) -> None:
    assert disk.not_full(tmp_path, full).state is state


# ---- the model ---------------------------------------------------------------------------------------------------


def test_a_model_is_whole_when_every_file_of_weights_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_here("pocket").whole
    (tmp_path / "config.json").write_text("{}")
    assert model_here(str(tmp_path)) == ModelFolder(tmp_path, whole=False)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert model_here(str(tmp_path)).whole
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, message in (("/nowhere", "neither a folder nor a hub name"), ("a/b/c", "neither a folder")):
        with pytest.raises(ValueError, match=message):
            model_here(name)


def test_a_hub_model_is_asked_for_once() -> None:
    asked = []

    def refuse(name: str, *_: object) -> ModelFolder:
        asked.append(name)
        raise ValueError("it could not be fetched")

    subject = Subject(recipe("--model.path=someone/model"), find=refuse)
    for _ in range(2):
        with pytest.raises(ValueError, match="could not be fetched"):
            _ = subject.model
    assert asked == ["someone/model"]


# ---- servers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_server_that_the_run_calls_must_listen(listening: int) -> None:
    assert servers.reachable(Server("judge", f"http://127.0.0.1:{listening}/v1", token=False)).state is PASS
    finding = servers.reachable(Server("judge", f"http://127.0.0.1:{closed_port()}/v1", token=False))
    assert (finding.state, "refused" in finding.said) == (FAIL, True)


def test_the_servers_of_a_recipe_are_those_with_an_address() -> None:
    config = load_config(
        None,
        overrides_of(
            *("--search.url=http://127.0.0.1:1/retrieve", "--tracking.mlflow_uri=sqlite:///mlflow.db"),
            *("--method.params.soft_pen=judge", "--method.params.judge_model=m"),
            "--method.params.judge_url=http://127.0.0.1:2/v1",
        ),
    )
    assert [server.name for server in servers_of(config)] == ["search server", "judge"]

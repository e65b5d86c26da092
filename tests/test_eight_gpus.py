"""The paper's recipes on one machine of eight GPUs: every process finds its place, and docs/eight-gpus.md says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.scaling_model import A100, H100
from benchmarks.scaling_model_table import recipe_step
from calibadv.config import Config, role
from calibadv.memory.parts import NODE_GPUS, gpus_wanted
from calibadv.rllib.config import CalibAdvConfig
from calibadv.rllib.stream import engine_pool
from calibadv.search.settings import SearchConfig
from serve.application import search_application
from tests.build import recipe
from workflows.session import wanted_cpus

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "eight-gpus.md").read_text(encoding="utf-8")
PAPER = ("qwen2.5-7b", "qwen2.5-3b", "llama-3.2-3b-instruct")
LEARNER_CPUS = 1.0  # the most that RLlib's "auto" asks for
CORES = 32  # of the smallest machines of eight such GPUs there are plenty more


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def actors(config: Config, folder: Path) -> list[dict[str, float]]:
    """What each process of the run asks Ray for: the engines' pool, the learners, the search app's replicas."""
    pool = engine_pool(config)
    learners = CalibAdvConfig().of_learners(config, config.run_method(), "/nowhere")
    assert learners.num_cpus_per_learner == "auto"
    (folder / "corpus.jsonl").write_text("")
    app = search_application(
        config.search, folder / "corpus.jsonl", folder, role(config.cluster.search_on)
    )._bound_deployment
    return [
        *[{"CPU": pool.num_cpus, "GPU": pool.num_gpus}] * pool.engines,
        *[{"CPU": LEARNER_CPUS, "GPU": learners.num_gpus_per_learner}] * learners.num_learners,
        *[{"CPU": app.ray_actor_options["num_cpus"], "GPU": app.ray_actor_options["num_gpus"]}]
        * config.search.replicas,
    ]


@pytest.mark.parametrize("name", PAPER)
def test_a_local_ray_has_a_gpu_for_every_process_and_none_is_idle(name: str, tmp_path: Path) -> None:
    config = recipe(name)
    assert config.cluster.address == "local"
    asked = actors(config, tmp_path)
    assert [each["GPU"] for each in asked] == [1.0] * NODE_GPUS
    assert gpus_wanted(config) == NODE_GPUS
    assert sum(each["CPU"] for each in asked) <= wanted_cpus(config) <= CORES


@pytest.mark.parametrize("name", PAPER)
def test_the_same_recipe_joins_a_cluster_by_one_override(name: str) -> None:
    config = recipe(name, "--cluster.address=auto", "--cluster.engines_on=engine", "--cluster.learners_on=learner")
    assert config.cluster.address == "auto"


@pytest.mark.parametrize("name", PAPER)
def test_the_page_has_the_split_and_the_modelled_hours(name: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}.toml`")]
    config = recipe(name)
    assert [int(cell) for cell in re.findall(r"\| (\d+)(?= \||\s\()", row)] == [
        config.rollout.engines,
        config.learner.learners,
        config.search.replicas,
    ]
    for gpu, cell in zip((H100, A100), row.split("|")[-3:-1], strict=True):
        step_s = round(recipe_step(config, gpu).seconds)
        assert f"{step_s} s" in cell
        assert f"{step_s * config.run.steps / 3600:.1f} h" in cell
    assert f"{config.run.steps} steps" in row


def test_the_page_has_six_commands() -> None:
    block = PAGE.split("```")[1].replace("\\\n", " ")
    assert len(block.strip().splitlines()) == 6


def test_fewer_gpus_hold_what_the_page_says() -> None:
    small = recipe("qwen2.5-3b", "--rollout.engines=1", "--learner.learners=2")
    assert "`--rollout.engines 1 --learner.learners 2`" in PAGE
    assert gpus_wanted(small) == 4


@pytest.mark.parametrize("name", PAPER)
def test_a_replica_tokenises_on_all_of_its_cores_and_another_on_one(name: str, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("")

    def environment(search: SearchConfig) -> dict[str, str]:
        app = search_application(search, tmp_path / "corpus.jsonl", tmp_path)
        found: dict[str, str] = app._bound_deployment.ray_actor_options["runtime_env"]["env_vars"]
        return found

    search = recipe(name).search
    assert search.num_cpus == search.threads == 8
    assert environment(search) == {
        "OMP_NUM_THREADS": "8",
        "TOKENIZERS_PARALLELISM": "true",
        "RAYON_NUM_THREADS": "8",
    }
    assert environment(search.but(threads=1)) == {"OMP_NUM_THREADS": "1"}

"""The recipes: the paper's hyper-parameters, and what the dry run says of each on cards of 80 and 96 GB."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from calibadv.config import Config, load_config
from calibadv.memory.parts import gpus_wanted
from calibadv.memory.plan import plan_of
from calibadv.views.dry_run import memory_tables, plan_page
from tests.build import recipe

pytestmark = pytest.mark.usefixtures("elsewhere")
FOLDER = Path(__file__).parents[1] / "workflows" / "recipes"
RECIPES = sorted(FOLDER.glob("*.toml"))
PAPER = {
    "qwen2.5-7b": ("Qwen/Qwen2.5-7B", 205),
    "qwen2.5-3b": ("Qwen/Qwen2.5-3B", 410),  # two epochs
    "llama-3.2-3b-instruct": ("meta-llama/Llama-3.2-3B-Instruct", 205),
}


def printed(config: Config, width: int = 120) -> str:
    out = StringIO()
    Console(file=out, width=width).print(plan_page(config, plan_of(config)))
    return out.getvalue()


def squeezed(text: str) -> str:
    """The words, wherever lines were broken."""
    return " ".join(text.split())


@pytest.mark.parametrize("name", PAPER)
def test_hyper_parameters_are_the_papers(name: str) -> None:
    config = recipe(name)
    assert (config.model.path, config.run.steps) == PAPER[name]
    assert (config.method.name, config.method.params) == ("calibadv", {})
    assert (config.data.questions_per_step, config.rollout.samples) == (512, 5)
    assert (config.learner.minibatch_rollouts, config.updates_per_step) == (256, 10)
    rollout, learner, search = config.rollout, config.learner, config.search
    assert (rollout.temperature, rollout.max_turns) == (1.0, 4)
    assert rollout.max_staleness == 1  # not the paper's: it halves a step where engines and learners have GPUs apart
    assert (rollout.max_prompt_tokens, rollout.max_turn_tokens) == (2048, 1024)
    assert (rollout.max_observation_tokens, rollout.max_tokens) == (2048, 16_384)
    assert (learner.lr, learner.lr_final, learner.betas) == (5e-7, 0.0, (0.9, 0.999))
    assert (learner.weight_decay, learner.grad_clip, learner.clip) == (0.01, 1.0, 0.2)
    assert (learner.kl_coef, learner.entropy_coef) == (0.0, 0.0)
    assert (search.encoder, search.index, search.reranker) == ("intfloat/e5-base-v2", "flat", "cross")
    assert search.cross_encoder == "cross-encoder/ms-marco-MiniLM-L12-v2"
    assert (search.top_k_retrieve, search.top_k, search.max_tokens) == (20, 3, 256)


def test_the_papers_recipes_differ_in_model_epochs_and_use_of_gpus_only() -> None:
    def rest(name: str) -> Config:
        config = recipe(name)
        return config.model_copy(
            update={
                "run": config.run.model_copy(update={"name": "", "steps": 1}),
                "model": config.model.model_copy(update={"path": ""}),
                "rollout": config.rollout.model_copy(update={"engines": 1}),
                "learner": config.learner.model_copy(update={"learners": 1, "zero": 0}),
            }
        )

    assert rest("qwen2.5-7b") == rest("qwen2.5-3b") == rest("llama-3.2-3b-instruct")


@pytest.mark.parametrize("name", PAPER)
def test_files_are_those_that_the_preparation_commands_write(name: str) -> None:
    config = recipe(name)
    assert config.data.train == "data/train.parquet"
    assert config.data.test == "data/test/hotpotqa.parquet"
    assert config.data.corpus == "data/wiki-18"
    header = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    assert "prepare_data.py paper data\n" in header
    assert f"{config.data.corpus}\n" in header
    assert f"--link {config.search.faiss_index}" in header


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_has_a_dry_run_of_120_columns_at_most(path: Path) -> None:
    config = load_config(path)
    text = printed(config)
    assert max(map(len, text.splitlines())) <= 120
    assert "What follows from it" in text
    assert ("Memory of each GPU" in text) == (gpus_wanted(config) > 0)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes_take_one_node_of_eight_gpus(name: str) -> None:
    assert "GPUs │ 8 of one node of 8" in squeezed(printed(recipe(name)))


@pytest.mark.parametrize("name", ["pocket-gpu", "qwen2.5-0.5b-one-gpu"])
def test_engine_and_learner_take_turns_on_one_gpu_of_24_gb(name: str) -> None:
    text = printed(recipe(name))
    assert "GPUs │ 1 of one node of 8" in squeezed(text)
    assert "card of 24 GB" in text
    assert text.count("fits: ") == 4  # two parts, two cards
    assert "does not fit" not in text


def test_the_pocket_world_learns_the_same_on_a_gpu() -> None:
    def learned(name: str) -> Config:
        config = recipe(name)
        placed = {"engines", "placement", "gpu_memory_utilization", "max_concurrent", "kv_cache_gb"}
        defaults = Config()
        return config.model_copy(
            update={
                "run": config.run.model_copy(update={"name": ""}),
                "model": defaults.model,
                "cluster": defaults.cluster,
                "rollout": config.rollout.model_copy(update={key: getattr(defaults.rollout, key) for key in placed}),
                "learner": config.learner.model_copy(
                    update={
                        key: getattr(defaults.learner, key)
                        for key in ("learners", "gpus_per_learner", "dtype", "threads")
                    }
                ),
            }
        )

    assert learned("pocket-gpu") == learned("pocket")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_vllms_core_has_a_process_of_its_own_where_new_weights_come_through_main_memory_anyway(path: Path) -> None:
    config = load_config(path)
    rollout = config.rollout
    on_its_own_gpus = config.cluster.gpus_per_engine > 0 and rollout.placement == "separate"
    assert rollout.engine_process == on_its_own_gpus
    assert config.cluster.cpus_per_engine == 1 + rollout.engine_process


def test_more_gpus_are_told_in_nodes() -> None:
    assert "15 of 2 nodes of 8" in printed(recipe("qwen2.5-3b", "--rollout.engines=9"))


@pytest.mark.parametrize("name", ["qwen2.5-3b", "llama-3.2-3b-instruct"])
def test_models_of_3b_fit_both_cards(name: str) -> None:
    text = printed(recipe(name))
    assert "does not fit" not in text
    assert text.count("fits: ") == 6  # three parts, two cards
    assert "To fit" not in text


def test_the_7b_model_fits_because_learners_share_it() -> None:
    text = printed(recipe("qwen2.5-7b"))
    assert "does not fit" not in text
    # A fifth of 20 x 7,615,616,512 bytes, and 24.1e9 that are not shared (tests/memory).
    for words in ("50.8", "fits: 21.4 GiB left", "fits: 35.9 GiB left", "fits: 49 full rollouts"):
        assert words in text, words
    alone = printed(recipe("qwen2.5-7b", "--learner.zero=0"))
    for words in ("144.4", "72.1 GiB short", "57.7 GiB short"):  # 155,046,874,112 bytes a learner
        assert words in alone, words
    assert "To fit 80 GB and 96 GB, learner: set learner.zero = 3 and learner.learners = 5." in squeezed(alone)


def test_the_search_gpu_holds_the_flat_index_of_wikipedia() -> None:
    text = squeezed(printed(recipe("qwen2.5-3b")))
    assert "flat index of 21,015,324 passages 60.1" in text  # 21,015,324 x 768 x 4 bytes
    assert "21,015,324 passages, going by the name wiki-18" in text


def test_an_index_of_unknown_size_is_said_to_be_left_out() -> None:
    text = squeezed(printed(recipe("qwen2.5-3b", "--data.corpus=mine.jsonl")))
    assert "The index is left out: how many passages mine.jsonl has is known once it is a corpus store." in text


def test_what_a_card_counts_is_said() -> None:
    text = squeezed(printed(recipe("qwen2.5-3b")))
    assert "A card of N GB is counted as N x 10^9 bytes, of which 97% can be used; an engine takes 85% of that." in text


def test_a_model_of_unknown_shape_on_gpus_is_said_to_be_unknown() -> None:
    config = recipe("qwen2.5-3b", "--model.path=someone/model")
    text = squeezed(printed(config))
    assert "The memory of each GPU is not known: someone/model is not a folder on this machine" in text
    assert "fits" not in text
    config = recipe("pocket", "--model.path=someone/model")
    assert memory_tables(config, plan_of(config)) == []


@pytest.mark.parametrize("name", PAPER)
def test_documentation_shows_the_tables_as_they_are_printed(name: str) -> None:
    out = StringIO()
    config = recipe(name)
    Console(file=out, width=120).print(*memory_tables(config, plan_of(config)))
    document = (FOLDER.parents[1] / "docs" / "memory.md").read_text(encoding="utf-8")
    shown = document.partition(f"`{name}.toml`\n\n```\n")[2].partition("\n```")[0]
    assert [line.strip() for line in out.getvalue().splitlines()] == [line.strip() for line in shown.splitlines()]

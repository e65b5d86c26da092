"""Bad input to `train.py`: a clear message, exit code 2, and nothing started."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from calibadv.checkpoints.identity import Identity, differences
from calibadv.cluster.model_folder import model_folder
from calibadv.config import load_config
from calibadv.data.corpus import load_corpus
from calibadv.data.digests import corpus_digest, model_digest, questions_digest
from calibadv.data.questions import load_questions
from calibadv.pocket import policy_path
from calibadv.training.inputs import Readers, check_inputs, check_job, resolve_inputs
from calibadv.training.parts import Parts
from tests.build import configured, jsonl
from workflows import one_run, train
from workflows.command import run_command

Run = Callable[..., tuple[int, str]]

QUESTION = {"id": "q1", "question": "Where was Ada born?", "golden_answers": ["Oslo"]}
SMALL = {
    "data.questions_per_step": "2",
    "rollout.samples": "2",
    "learner.minibatch_rollouts": "4",
    "model.path": str(policy_path()),
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Overrides of a tiny run whose input is right."""
    questions = [QUESTION | {"id": f"q{i}"} for i in range(4)]
    return SMALL | {
        "data.train": str(jsonl(tmp_path / "train.jsonl", *questions)),
        "data.test": str(jsonl(tmp_path / "test.jsonl", {**QUESTION, "question": "Who was born in Oslo?"})),
        "data.corpus": str(jsonl(tmp_path / "corpus.jsonl", {"id": "d", "title": "Ada", "text": "Born in Oslo."})),
        "run.folder": str(tmp_path / "runs"),
        "run.cache": str(tmp_path / "cache"),
    }


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code and stderr of the command; fails if anything was started or written."""

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("a run was started")

    def call(overrides: dict[str, str], *flags: str) -> tuple[int, str]:
        given = {"run.folder": str(tmp_path / "runs")} | overrides  # not the checkout's, which may hold runs
        arguments = [part for key, value in given.items() for part in (f"--{key}", value)]
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        nothing = partial(one_run.train, parts=Parts(refuse))
        code = run_command(lambda: train.main([*flags, *arguments], train=nothing))
        assert not ray.is_initialized()
        assert not (tmp_path / "runs").exists()
        said = capsys.readouterr()
        return code, said.err + said.out

    return call


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"search.reranker": "cross", "search.cross_encoder": "/no/such"},
            "search.cross_encoder = '/no/such' is neither",
        ),
        (
            {"search.reranker": "cross"},
            "search.cross_encoder = 'cross-encoder/ms-marco-MiniLM-L12-v2' is no folder here",
        ),
        ({"search.encoder": "acme/e5"}, "search.encoder = 'acme/e5' is no folder here and not in the hub's cache"),
    ],
)
def test_search_models_that_are_not_to_be_had_are_refused(
    run: Run, files: dict[str, str], given: dict[str, str], said: str, flags: tuple[str, ...]
) -> None:
    code, words = run(files | given, *flags)
    assert (code, said in words) == (2, True), words


def test_right_input_is_resolved_to_checked_files(files: dict[str, str], tmp_path: Path) -> None:
    inputs = resolve_inputs(load_config(None, files))
    assert (inputs.train, inputs.corpus) == (tmp_path / "train.jsonl", tmp_path / "corpus.jsonl")
    assert inputs.model == policy_path()


def test_each_file_is_read_once_also_for_a_method_that_reads_gold(tmp_path: Path) -> None:
    read: list[Path] = []

    def counted(reader: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, **more: Any) -> Any:
            read.append(path)
            return reader(path, **more)

        return call

    readers = Readers(counted(load_questions), counted(load_corpus))
    config = load_config(
        train.RECIPES / "pocket.toml", {"run.cache": tmp_path, "method.name": "stepsearch", "data.test_questions": 8}
    )
    inputs = resolve_inputs(config, readers)
    assert sorted(read) == sorted([inputs.train, inputs.test, inputs.corpus])
    assert any(question.gold_passages for question in inputs.train_questions)
    assert len(inputs.test_questions) == 8
    assert inputs.digests == {
        **{name: questions_digest(load_questions(getattr(inputs, name))) for name in ("train", "test")},
        "corpus": corpus_digest(inputs.corpus),
        "model": model_digest(policy_path()),
    }
    data = inputs.data_sets
    assert {name: given.context for name, given in data.items()} == {name: name for name in ("train", "test", "corpus")}
    assert data["test"].rows == len(load_questions(inputs.test)) > 8  # the file's, of which 8 are asked
    assert (data["corpus"].rows, data["corpus"].source) == (len(load_corpus(inputs.corpus)), str(inputs.corpus))
    assert {name: given.digest for name, given in data.items()}.items() <= inputs.digests.items()


def test_digests_of_questions_do_not_depend_on_how_they_are_scored(files: dict[str, str]) -> None:
    by_words, by_characters = (
        resolve_inputs(load_config(None, files | {"reward.tokens": unit})) for unit in ("words", "unspaced")
    )
    assert by_words.digests == by_characters.digests
    assert by_words.train_questions != by_characters.train_questions


def test_another_reward_under_the_same_name_is_another_run(files: dict[str, str], tmp_path: Path) -> None:
    def resolved(text: str, folder: str) -> Identity:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text)
        config = load_config(None, files | {"reward.outcome": f"{tmp_path}/{folder}/mine.py:reward"})
        return Identity({}, resolve_inputs(config).digests)

    text = "def reward(question, trajectory):\n    return 1.0\n"
    first, same, other = (
        resolved(given, folder) for given, folder in ((text, "a"), (text, "b"), (text.replace("1.0", "2.0"), "c"))
    )
    assert differences(first, same, {}) == []
    (words,) = differences(first, other, {})
    assert words.startswith("the reward.outcome files hold something else than before (digest ")


def test_pocket_names_the_embedded_world_and_policy(tmp_path: Path) -> None:
    inputs = resolve_inputs(load_config(train.RECIPES / "pocket.toml", {"run.cache": tmp_path}))
    assert {inputs.train.parent, inputs.test.parent, inputs.corpus.parent} == {tmp_path / "pocket"}
    assert all(path.is_file() for path in (inputs.train, inputs.test, inputs.corpus))
    assert inputs.model == policy_path()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"method.name": "calibad"}, "unknown method 'calibad' (did you mean 'calibadv'?)"),
        ({"run.sed": "1"}, "unknown key 'run.sed'"),
        ({"learner.minibatch_rollouts": "3"}, "4 rollouts do not divide into mini-batches"),
        ({"model.path": "/nowhere/model"}, "model.path = '/nowhere/model' is neither a folder nor a hub name"),
        ({"model.path": "someone/model"}, "HF_HUB_OFFLINE=1 forbids to fetch it"),
        ({"data.train": "/nowhere/train.jsonl"}, "/nowhere/train.jsonl: no such file"),
        ({"data.corpus": "/nowhere/corpus.jsonl"}, "/nowhere/corpus.jsonl: no such file"),
        (
            {"data.questions_per_step": "6", "rollout.samples": "2"},
            "has 4 questions, fewer than data.questions_per_step = 6",
        ),
        ({"rollout.max_prompt_tokens": "20"}, "tokens, the budget is 20: raise --rollout.max_prompt_tokens"),
        ({"rollout.template": "Answer!"}, "the prompt template must contain '{question}'"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_wrong_value_is_refused_by_name(
    run: Run, files: dict[str, str], overrides: dict[str, str], message: str, flags: tuple[str, ...]
) -> None:
    code, said = run(files | overrides, *flags)
    assert code == 2
    assert [line for line in said.splitlines() if line.startswith("error: ")]
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "the file holds no records"),
        ([QUESTION, QUESTION], "line 2: id '{part}/q1' was already used in"),
        ([QUESTION, QUESTION | {"id": "q2", "golden_answers": []}], "line 2: question 'q2' has no golden answer"),
        ([QUESTION, {"id": "q2", "question": "Who?"}], "line 2: no answers among the keys"),
        ([QUESTION, ["who?"]], "line 2: found ['who?']"),
    ],
)
def test_wrong_question_file_is_refused_with_its_line(
    run: Run, files: dict[str, str], tmp_path: Path, part: str, records: list[Any], message: str
) -> None:
    jsonl(tmp_path / f"{part}.jsonl", *records)
    code, said = run(files)
    assert code == 2
    assert f"{part}.jsonl" in said
    assert message.format(part=part) in said


def test_malformed_json_is_refused_with_its_line(run: Run, files: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"id": "q9", "question"\n')
    code, said = run(files)
    assert code == 2
    assert "train.jsonl, line 5: malformed JSON" in said


def test_the_longest_prompt_is_found_wherever_it_stands(run: Run, files: dict[str, str], tmp_path: Path) -> None:
    questions = [QUESTION | {"id": f"q{i}"} for i in range(50)]
    questions[17]["question"] = "who? " * 3000
    jsonl(tmp_path / "train.jsonl", *questions)
    code, said = run(files)
    assert code == 2
    assert "the prompt of question 'train/q17' has" in said


def test_missing_recipe_is_refused(run: Run, tmp_path: Path) -> None:
    code, said = run({}, "--config", str(tmp_path / "none.toml"))
    assert code == 2
    assert f"error: no recipe at {tmp_path / 'none.toml'}" in said


def test_tokenizer_without_chat_template_is_refused(run: Run, files: dict[str, str], tmp_path: Path) -> None:
    model = shutil.copytree(policy_path(), tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    code, said = run(files | {"model.path": str(model)})
    assert code == 2
    assert "has no chat template: use an instruct model" in said


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_folder_that_is_no_model_is_refused_by_name(
    run: Run, files: dict[str, str], tmp_path: Path, missing: str
) -> None:
    model = shutil.copytree(policy_path(), tmp_path / "model")
    (model / missing).unlink()
    code, said = run(files | {"model.path": str(model)})
    assert code == 2
    assert str(model) in said
    assert missing.removesuffix(".json") in said


def test_a_question_in_train_and_test_is_warned_of(files: dict[str, str], tmp_path: Path, caplog: Any) -> None:
    shutil.copy(tmp_path / "train.jsonl", tmp_path / "test.jsonl")
    resolve_inputs(load_config(None, files))
    assert "4 questions are in both train and test, e.g. 'Where was Ada born?'" in caplog.text


@pytest.mark.parametrize("look", [resolve_inputs, check_inputs], ids=["run", "dry run"])
def test_settings_under_which_training_has_failed_are_warned_of(
    look: Callable[..., Any], files: dict[str, str], caplog: Any
) -> None:
    look(load_config(None, files))
    assert "garbled text" not in caplog.text
    look(load_config(None, files | {"rollout.top_p": 0.95}))
    assert "with top_p 1 it did not (docs/lab.md); set rollout.top_p 1;" in caplog.text


@pytest.mark.parametrize(("inside", "folder", "warned"), [(True, "runs", 1), (True, "/runs", 0), (False, "runs", 0)])
def test_results_that_would_go_with_the_job_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, inside: bool, folder: str, warned: int
) -> None:
    here = tmp_path / ("working_dir_files" if inside else "home") / "_ray_pkg_1"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    resolve_inputs(load_config(None, {"run.folder": folder, "run.cache": tmp_path / "cache"}))
    assert caplog.text.count("which Ray removes some time after the job") == warned


def test_hub_models_are_told_from_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "config.json").write_text("{}")
    (tmp_path / "models" / "mine" / "model.safetensors").write_bytes(b"")
    assert model_folder("models/mine") == tmp_path / "models" / "mine"
    for name in ("./models/other", "a/b/c", "mine"):
        with pytest.raises(ValueError, match="is neither a folder nor a hub name"):
            model_folder(name)


def test_dry_run_shows_configuration_and_consequences_and_starts_nothing(run: Run) -> None:
    code, said = run({"run.steps": "7", "data.questions_per_step": "16", "rollout.samples": "5"}, "--dry-run")
    assert code == 0
    assert "steps = 7" in said
    assert "16 questions x 5 = 80" in said
    assert "[learner]" in said


def test_a_dry_run_looks_at_all_input_and_leaves_nothing(run: Run, files: dict[str, str], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run(files, "--dry-run")[0] == 0
    assert run(files | {"data.corpus": "pocket"}, "--dry-run")[0] == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_shows_what_follows_before_it_says_what_is_wrong(run: Run) -> None:
    code, said = run({"data.train": "/nowhere.jsonl", "model.path": "someone/model"}, "--dry-run")
    assert code == 2
    assert "not known: someone/model is not a folder" in said  # its memory
    assert said.startswith("error: model.path = 'someone/model' is no folder here")


def test_a_hub_model_that_a_run_would_fetch_is_not_fetched_by_a_dry_run(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    caplog.set_level("INFO")
    check_inputs(load_config(None, files | {"model.path": "a/b"}))
    assert "the model a/b is not in the hub's cache: a run fetches it first" in caplog.text
    assert not (tmp_path / "hub").exists()


def test_a_dry_run_is_refused_where_the_folder_holds_a_run(files: dict[str, str], tmp_path: Path) -> None:
    overrides = [f"--{key}={value}" for key, value in files.items()]
    folder = tmp_path / "runs" / "calibadv-seed0"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a finished run: choose another"):
        check_inputs(configured(*overrides))
    check_inputs(configured(*overrides, "--run.overwrite=true"))
    check_inputs(configured(*overrides), resume=True)


def test_flags_may_stand_anywhere_among_the_overrides(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[run]\nsteps = 3\n")
    asked = train.parse(["--run.seed", "4", "--dry-run", "--learner.lr=1e-6", "--config", str(recipe)])
    assert asked.dry_run
    config = asked.config
    assert (config.run.seed, config.run.steps, config.learner.lr) == (4, 3, 1e-6)


def test_without_arguments_it_is_the_pocket_recipe() -> None:
    asked = train.parse([])
    assert not asked.dry_run
    config = asked.config
    assert config == load_config(train.RECIPES / "pocket.toml")
    assert (config.data.train, config.model.path, config.rollout.engine) == ("pocket", "pocket", "vllm")


def test_ctrl_c_before_anything_is_started_is_130() -> None:
    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt

    parts = Parts(interrupted, inputs=interrupted)
    assert run_command(lambda: train.main([], train=partial(one_run.train, parts=parts))) == 130


def test_a_job_that_would_start_a_ray_beside_its_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ValueError, match=r"cluster\.address = 'local' in a Ray job .* give --cluster\.address auto"):
        check_job(load_config(None))
    check_job(load_config(None, {"cluster.address": "auto"}))
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    check_job(load_config(None))


def test_a_job_that_names_data_of_a_checkout_is_told_to_name_the_shared_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    job = ["--cluster.address", "auto", "--data.train", "data/train.parquet"]
    with pytest.raises(ValueError, match=r"data\.train = 'data/train\.parquet' is not in the job's .*absolute path"):
        resolve_inputs(configured(*job))
    index = ["--cluster.address", "auto", "--search.faiss_index", "data/wiki-18.index"]
    with pytest.raises(ValueError, match=r"--search\.faiss_index /mnt/calibadv/data/wiki-18\.index"):
        resolve_inputs(configured(*index))

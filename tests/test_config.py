"""Configuration: the paper's defaults, recipes and overrides, and what is said about a wrong value."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calibadv.config import Config, ConfigError, decides, load_config, to_toml
from calibadv.config.command_line import flags, keys_help, parse, split
from calibadv.config.risks import risks
from calibadv.methods import make_method
from calibadv.section import Decides

RECIPES = sorted((Path(__file__).parents[1] / "workflows" / "recipes").glob("*.toml"))
POCKET = next(path for path in RECIPES if path.stem == "pocket")


def configured(*arguments: str, recipe: Path | None = None) -> Config:
    """The configuration of a command without flags of its own."""
    _, values = parse(argparse.ArgumentParser(allow_abbrev=False), arguments)
    return load_config(recipe, values)


def refused(*overrides: str, recipe: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        configured(*overrides, recipe=recipe)
    return str(caught.value)


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


# ---- what is used ------------------------------------------------------------------------------------------------


def test_defaults_are_the_papers() -> None:
    config = Config()
    assert (config.method.name, config.method.params) == ("calibadv", {})
    assert (config.data.questions_per_step, config.rollout.samples, config.run.steps) == (512, 5, 205)
    rollout = config.rollout
    assert (rollout.max_prompt_tokens, rollout.max_turn_tokens) == (2048, 1024)
    assert (rollout.max_observation_tokens, rollout.max_tokens) == (2048, 16384)
    assert (rollout.max_turns, rollout.temperature, rollout.require_search) == (4, 1.0, True)
    learner = config.learner
    assert (learner.lr, learner.lr_final, learner.minibatch_rollouts) == (5e-7, 0.0, 256)
    assert (learner.betas, learner.weight_decay, learner.grad_clip, learner.clip) == ((0.9, 0.999), 0.01, 1.0, 0.2)
    assert (learner.kl_coef, learner.entropy_coef) == (0.0, 0.0)
    assert (config.search.top_k_retrieve, config.search.top_k) == (20, 3)
    assert (config.rollouts_per_step, config.updates_per_step) == (2560, 10)


def test_nothing_given_is_the_default() -> None:
    assert load_config() == Config()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_comes_back_from_its_own_toml(recipe: Path, tmp_path: Path) -> None:
    config = load_config(recipe)
    assert load_config(written(tmp_path, to_toml(config))) == config


def test_run_is_named_after_method_and_seed_unless_it_has_a_name() -> None:
    assert load_config(None, {"method.name": "grpo", "run.seed": 7}).run_name == "grpo-seed7"
    assert load_config(None, {"run": {"name": "mine"}}).run_name == "mine"


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("--run.seed 3", "run.seed", 3),
        ("--learner.lr 1e-6", "learner.lr", 1e-6),
        ("--learner.betas [0.8,0.95]", "learner.betas", (0.8, 0.95)),
        ("--learner.gradient-checkpointing true", "learner.gradient_checkpointing", True),
        ("--run.overwrite True", "run.overwrite", True),
        ("--data.test_questions 12", "data.test_questions", 12),
        ("--data.test_questions none", "data.test_questions", None),
        ("--evaluation.every null", "evaluation.every", None),
        ("--search.reranker none", "search.reranker", "none"),
        ("--method.params.soft_pen none", "method.params", {"soft_pen": "none"}),
        ("--run.name none", "run.name", "none"),
        ("--run.name 42", "run.name", "42"),
        ("--run.name 2026-01-31", "run.name", "2026-01-31"),
        ("--run.folder 7", "run.folder", Path("7")),
        ("--data.train data/hotpot.jsonl", "data.train", "data/hotpot.jsonl"),
        ("--rollout.template={question}=?", "rollout.template", "{question}=?"),
        (r'--rollout.template="{question}\n"', "rollout.template", "{question}\n"),
        ("--method.params.lam 2.0", "method.params", {"lam": 2.0}),
        ("--method.params.adv_reb false", "method.params", {"adv_reb": False}),
        ("--method.params.preset reference", "method.params", {"preset": "reference"}),
    ],
)
def test_override(override: str, key: str, value: Any) -> None:
    config: Any = configured(*override.split(" "))
    for part in key.split("."):
        config = getattr(config, part)
    assert config == value
    assert isinstance(config, type(value))


def test_an_override_wins_over_the_recipe_and_the_last_one_over_the_first(tmp_path: Path) -> None:
    recipe = written(tmp_path, "[run]\nseed = 1\nsteps = 9\n[method.params]\nlam = 2.0\n")
    config = configured("--run.seed", "2", "--run.seed", "3", "--method.params.adv_reb", "false", recipe=recipe)
    assert (config.run.seed, config.run.steps) == (3, 9)
    assert config.method.params == {"lam": 2.0, "adv_reb": False}


def test_values_from_code_are_taken_as_they_are_and_a_section_may_be_given_in_part(tmp_path: Path) -> None:
    recipe = written(tmp_path, "[run]\nseed = 1\nsteps = 9\n[method.params]\nlam = 2.0\n")
    given = {"run": {"seed": 3, "folder": tmp_path}, "data.test_questions": None, "method.params": {"adv_reb": False}}
    config = load_config(recipe, given)
    assert (config.run.seed, config.run.steps, config.run.folder) == (3, 9, tmp_path)
    assert config.method.params == {"adv_reb": False}
    assert given["method.params"] == {"adv_reb": False}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("run.name", name) for name in ("42", '"', "--run.seed", "none", "a b", "[1", "größe", "true", "")),
        ("run.folder", Path("7")),
        ("run.overwrite", True),
        ("learner.lr", 1e-7),
        ("learner.betas", [0.8, 0.95]),
        ("learner.lora_targets", ["q_proj"]),
        ("sentinel.repetition", float("inf")),
        ("data.test_questions", None),
        ("method.params", {"lam": 2.0, "preset": "reference"}),
    ],
)
def test_values_that_are_written_as_flags_are_read_back(key: str, value: Any) -> None:
    own, read = split(flags({key: value}))
    assert own == []
    assert load_config(None, read) == load_config(None, {key: value})


def test_help_names_every_key_with_type_default_and_meaning_in_the_width_it_is_given() -> None:
    text = keys_help(80)
    for section, part in Config.model_fields.items():
        assert part.annotation.__doc__, section
        for key, field in part.annotation.model_fields.items():
            assert field.description, f"{section}.{key} has no docstring"
            (line,) = [line for line in text.splitlines() if line.startswith(f"  --{section}.{key} ")]
            assert re.fullmatch(r"  --[\w.]+ \S.* \(default: .+\)", line)
    assert "  --learner.lr NUMBER (default: 5e-07)\n      The policy's learning rate" in text
    assert "  --rollout.engine vllm|torch (default: vllm)\n" in text
    assert "  --data.test_questions INTEGER or none (default: none)\n" in text
    assert "  --method.params TABLE (default: {})\n" in text
    assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("  --"))


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--learner.learning_rates", "1"], r"unknown key 'learner.learning_rates'"),
        (["--rollout.smaples", "4"], r"unknown key 'rollout.smaples' \(did you mean 'rollout.samples'\?\)"),
        (["--learner.seed", "4"], r"unknown key 'learner.seed' \(did you mean 'run.seed'\?\)"),
        (["--lerner.lr", "1"], r"unknown key 'lerner' \(did you mean 'learner'\?\)"),
        (["--seed", "1"], r"--seed names no section \(did you mean 'run.seed'\?\): use --section.key value"),
        (["--run.seed"], r"--run.seed has no value"),
        (["--run.seed", "--run.steps", "3"], r"--run.seed has no value"),
        (["run.seed", "1"], r"unexpected argument 'run.seed': overrides are --section.key value"),
        (["--run.seed", "often"], r"run.seed = 'often': .*integer"),
        (["--run.seed", "1.5"], r"run.seed = 1.5: .*integer"),
        (["--run.steps", "0"], r"run.steps = 0: .*greater than or equal to 1"),
        (["--rollout.temperature", "nan"], r"rollout.temperature = nan"),
        (["--search.retriever", "google"], r"search.retriever = 'google': .*'dense', 'bm25' or 'hybrid'"),
        (["--model.trust_remote_code", "true"], r"model.trust_remote_code = True: .*False"),
        (["--run.seed.low", "1"], r"run.seed = \{'low': 1\}: .*integer"),
        (["--learner.betas", "[0.9]"], r"learner.betas.1"),
        (["--method.name", "calibad"], r"unknown method 'calibad' \(did you mean 'calibadv'\?\)"),
        (["--method.params.lamb", "1"], r"no parameter 'lamb' \(did you mean 'lam'\?\)"),
        (["--method.params.lam", "-1"], r"lam is -1"),
        (["--rollout.max_prompt_tokens", "16384"], r"max_prompt_tokens = 16384 leaves no room in .* = 16384"),
        (["--learner.importance_cap", "2.0"], r"set learner.old_logprobs 'recompute'"),
        (["--learner.token_mask", "[0.5, 2]"], r"learner.token_mask corrects recomputed .* set learner.old_logprobs"),
        (
            ["--learner.rollout_mask", "[1.1, 1.2]", "--learner.old_logprobs", "recompute"],
            r"learner.rollout_mask = \[1.1, 1.2\]: expected bounds around 1",
        ),
        (
            ["--rollout.on_new_weights", "keep"],
            r"'keep' with rollout.engine_process = False and .* set them to true and 1",
        ),
        (
            ["--rollout.engine", "torch", "--rollout.engine_process", "true"],
            r"rollout.engine_process = true is vLLM's, and rollout.engine = 'torch'",
        ),
        (["--learner.surrogate", "grpo"], r"learner.surrogate = 'grpo' is not known .* expected one of ppo, gspo,"),
        (["--learner.surrogate", "nowhere.py:f"], r"learner.surrogate = 'nowhere.py:f': there is no file"),
        (["--learner.surrogate", "math:pi"], r"learner.surrogate = 'math:pi' is no function: it is 3.14"),
        (
            ["--learner.surrogate", "sapo", "--learner.clip_high", "0.3"],
            r"learner.clip_high = 0.3 is read by ppo, gspo, gspo_turn, cispo, not by learner.surrogate = 'sapo'",
        ),
        (
            ["--learner.surrogate", "cispo", "--learner.dual_clip", "3"],
            r"learner.dual_clip = 3 is read by ppo, gspo, gspo_turn, not by learner.surrogate = 'cispo'",
        ),
        (["--learner.divisor", "constant"], r"learner.divisor = 'constant' with learner.divisor_tokens = none"),
        (
            ["--learner.divisor_tokens", "512"],
            r"learner.divisor = 'tokens' with learner.divisor_tokens = 512: the const",
        ),
        (
            ["--learner.zero", "2"],
            r"learner.zero = 2 .* learner.learners = 0 is no more than one: set learner.learners",
        ),
        (["--learner.zero", "4"], r"learner.zero = 4: .*0, 1, 2 or 3"),
        (
            ["--learner.zero", "1", "--learner.learners", "2", "--method.name", "ppo"],
            r"learner.zero = 1 shares the policy's state alone, and method 'ppo' trains a critic",
        ),
        (
            ["--rollout.vllm.max_model_len", "9"],
            r"^rollout.vllm.max_model_len is what rollout.max_tokens sets: set that instead$",
        ),
        (
            ["--rollout.vllm.trust_remote_code", "true"],
            r"^rollout.vllm.trust_remote_code cannot be set: a model's own code is never run$",
        ),
        (["--rollout.enforce_eager", "true"], r"did you mean 'rollout.vllm', a table of vLLM's own engine arguments\?"),
        (
            ["--rollout.temperature", "0.7", "--rollout.top_p", "0.9"],
            r"temperature = 0.7 with rollout.top_p = 0.9: .* to 1",
        ),
    ],
)
def test_wrong_override_is_named_with_value_and_expectation(overrides: list[str], message: str) -> None:
    said = refused(*overrides)
    assert re.search(message, said), said


NUMBERS = [
    pytest.param(section, key, field, id=f"{section}.{key}")
    for section, part in Config.model_fields.items()
    for key, field in getattr(part.annotation, "model_fields", {}).items()
    if {int, float} & {field.annotation, *get_args(field.annotation)}
]


@pytest.mark.parametrize(("section", "key", "field"), NUMBERS)
def test_every_number_has_a_lower_and_an_upper_bound(section: str, key: str, field: Any) -> None:
    turned_off_by_inf = section == "sentinel" and float in (field.annotation, *get_args(field.annotation))
    for nonsense in ("-1", "nan", "true") if turned_off_by_inf else ("-1", "1e400", "nan", "true", "9" * 30):
        said = refused(f"--{section}.{key}", nonsense)  # a bound is `Field(ge=…, le=…)`, see calibadv/section.py
        assert key in said, said
        assert "\n" not in said


def test_numbers_of_every_section_were_found() -> None:
    assert len(NUMBERS) > 50


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--learner.lr", "1e400"], "learner.lr = inf: Input should be a finite number"),
        (["--learner.lr", "5"], "learner.lr = 5: Input should be less than or equal to 1"),
        (["--learner.betas", "[0.9, 1.0]"], "learner.betas.1 = 1.0: Input should be less than 1"),
        (["--run.seed", "-1"], "run.seed = -1: Input should be greater than or equal to 0"),
        (["--run.steps", "true"], "run.steps = True: Input should be a number"),
        (["--data.questions_per_step", "0"], "data.questions_per_step = 0: Input should be greater than or equal to 1"),
        (["--method.params.lam", "1e400"], "method 'calibadv': lam is inf: expected a finite number"),
        (["--method.params.correct_threshold", "nan"], "correct_threshold is nan: expected a finite number"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(overrides: list[str], message: str) -> None:
    assert message in refused(*overrides)


def test_a_run_may_have_any_letters_in_its_name_but_not_more_than_a_folder_may() -> None:
    for name in ("versuch-größe", "实验", "a b#c:d=e", "ß" * 100):
        assert configured(f"--run.name={name}").run_name == name
    assert "202 bytes are too long for a folder's name, expected at most 200" in refused("--run.name", "ß" * 101)


def test_mini_batches_that_do_not_divide_get_a_suggestion_that_does() -> None:
    said = refused("--data.questions_per_step", "32", "--learner.minibatch_rollouts", "50")
    assert "= 160 rollouts do not divide into mini-batches of learner.minibatch_rollouts = 50" in said
    assert "try 40" in said  # the divisors of 160 beside 50 are 40 and 80
    config = load_config(None, {"data.questions_per_step": 32, "learner.minibatch_rollouts": 40})
    assert config.updates_per_step == 4


def test_recomputed_logprobs_allow_temperature_and_importance_cap() -> None:
    config = load_config(
        None, {"learner": {"old_logprobs": "recompute", "importance_cap": 2.0}, "rollout.temperature": 0.7}
    )
    assert config.rollout.temperature == 0.7


def test_every_problem_has_a_line_of_its_own() -> None:
    said = refused("--run.sed", "1", "--run.steps", "0").splitlines()
    assert len(said) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\nseed = \n", r"recipe.toml is not TOML: .*line 2"),
        ("[run]\nseed = 1\nseed = 2\n", r"recipe.toml is not TOML"),
        ("run = 3\n", r"run = 3"),
        ("seed = 3\n", r"unknown key 'seed' \(did you mean 'run.seed'\?\)"),
        ("[run]\nstep = 3\n", r"unknown key 'run.step' \(did you mean 'run.steps'\?\)"),
    ],
)
def test_wrong_recipe_says_where(tmp_path: Path, text: str, message: str) -> None:
    assert re.search(message, refused(recipe=written(tmp_path, text)))


def test_a_byte_order_mark_before_a_recipe_is_none_of_its_keys(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"\xef\xbb\xbf[run]\nseed = 3\n")
    assert load_config(tmp_path / "recipe.toml").run.seed == 3


PLACES = (
    *("run.folder", "run.cache", "data.train", "data.test", "data.corpus", "model.path", "checkpoint.uri"),
    *("tracking.mlflow_uri", "serve.feedback", "search.encoder", "search.cross_encoder", "search.faiss_index"),
    "search.ledger",
)


def test_a_tilde_at_the_beginning_of_a_path_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    lines = "".join(f'{key} = "~/of/ada"\n' for key in PLACES)
    by_flags = configured(*(word for key in PLACES for word in (f"--{key}", "~/of/ada")))
    for config in (load_config(written(tmp_path, lines)), by_flags):
        values = {key: getattr(getattr(config, key.partition(".")[0]), key.partition(".")[2]) for key in PLACES}
        assert {key: str(value) for key, value in values.items()} == dict.fromkeys(PLACES, "/home/ada/of/ada")
    (tmp_path / "mine.py").write_text("def reward(question, trajectory): return 1.0\n", "utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert configured("--reward.outcome", "~/mine.py:reward").reward.outcome == f"{tmp_path}/mine.py:reward"


@pytest.mark.parametrize("value", ["data/~ada/x", "s3://bucket/~ada", "./~", "~a\0"])
def test_a_tilde_elsewhere_is_a_letter_like_any(value: str) -> None:
    assert configured("--data.train", value).data.train == value


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("data.train", "a file, or 'pocket'"),
        ("data.test", "a file, or 'pocket'"),
        ("data.corpus", "a file, or 'pocket'"),
        ("model.path", "a folder, a hub name, or 'pocket'"),
        ("run.folder", "a folder, e.g. '.' for the current one"),
        ("run.cache", "a folder, e.g. '.' for the current one"),
        ("search.encoder", "a model folder or a hub name"),
        ("search.cross_encoder", "a model folder or a hub name"),
    ],
)
def test_nothing_is_no_place(key: str, expected: str) -> None:
    assert refused(f"--{key}", "") == f"{key} = '': expected {expected}"
    assert refused(f"--{key}=  ") == f"{key} = '  ': expected {expected}"


def test_section_given_as_a_value_cannot_be_overridden(tmp_path: Path) -> None:
    assert "run.seed: run is a value, not a section" in refused(
        "--run.seed", "1", recipe=written(tmp_path, "run = 3\n")
    )


def test_recipe_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    assert "no recipe at" in refused(recipe=tmp_path / "none.toml")
    assert str(tmp_path) in refused(recipe=tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert "binary.toml is not TOML" in refused(recipe=tmp_path / "binary.toml")


def test_method_switch_is_never_turned_on_by_a_word_that_is_not_true() -> None:
    # Any text but "" is true in Python: `--method.params.pre_think False` must not turn it on.
    choice = configured("--method.params.pre_think=False").method
    assert make_method(choice.name, choice.params).prefill == ""
    assert "pre_think = 'maybe': Input should be a valid boolean" in refused("--method.params.pre_think=maybe")


def test_method_parameter_of_the_wrong_type_is_refused_by_name() -> None:
    assert "method 'calibadv': lam = 'much': Input should be a valid number" in refused("--method.params.lam", "much")


# ---- TOML --------------------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
changes = st.fixed_dictionaries(
    {},
    optional={
        "run": st.fixed_dictionaries({"seed": st.integers(0, 2**32 - 1), "overwrite": st.booleans()}),
        "data": st.fixed_dictionaries(
            {"train": text.filter(str.strip), "test_questions": st.none() | st.integers(1, 10**6)}
        ),
        "learner": st.fixed_dictionaries(
            {
                "lr": st.floats(min_value=0, max_value=1, exclude_min=True),
                "betas": st.tuples(*2 * (st.floats(0, 1, exclude_max=True),)),
                "token_budget": st.integers(1, 10**8),
            }
        ),
        "method": st.fixed_dictionaries(
            {
                "params": st.fixed_dictionaries(
                    {}, optional={"lam": st.floats(0.1, 10), "adv_reb": st.booleans(), "preset": st.just("reference")}
                )
            }
        ),
    },
)


@given(changes)
@example({"data": {"train": '\x7f \u2028 "\\\r\n'}})
@settings(deadline=None)
def test_configuration_survives_its_own_toml(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]) -> None:
    config = Config.model_validate(tree)
    assert load_config(written(tmp_path_factory.getbasetemp(), to_toml(config))) == config


def test_every_section_says_what_its_settings_decide() -> None:
    sections = [field.annotation for field in Config.model_fields.values()]
    assert all(isinstance(vars(section).get("decides"), Decides) for section in sections)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("data.train", Decides.CONTENT),
        ("data.questions_per_step", Decides.TASK),
        ("run.steps", Decides.TASK),
        ("run.folder", Decides.PLACE),
        ("rollout.max_turns", Decides.DIALOGUE),
        ("rollout.engines", Decides.MEANS),
        ("rollout.vllm.enforce_eager", Decides.MEANS),
        ("rollout.vllm.quantization", Decides.RESULT),
        ("method.params.lam", Decides.RESULT),
        ("run.seed", Decides.RESULT),
        ("learner.of_another_release", Decides.RESULT),
        ("nothing.at_all", Decides.RESULT),
    ],
)
def test_what_a_setting_decides_is_said_by_its_section_or_itself(key: str, what: Decides) -> None:
    assert decides(key) is what


@pytest.mark.parametrize(
    ("overrides", "said", "remedy"),
    [
        (("--rollout.top_p=0.95",), "top_p 0.95", "rollout.top_p 1;"),
        (("--rollout.top_p=0.9", "--learner.old_logprobs=recompute"), "top_p 0.9,", "rollout.top_p 1;"),
        (("--learner.surrogate=gspo",), "learner.clip 0.2 ", "learner.clip 3e-4"),
        (("--learner.surrogate=gspo_turn", "--learner.clip=0.05"), "learner.clip 0.05 ", "learner.clip 3e-4"),
        (
            ("--learner.gpus_per_learner=1", "--learner.learners=1"),
            "dtype 'float32' on a GPU",
            "learner.dtype 'bfloat16'",
        ),
        # 512 questions x 5 rollouts; 2,560 / 50 = 51.2 s
        (("--search.reranker=cross",), "2,560 rollouts", "search.timeout_s 52 "),
        (("--search.reranker=cross", "--search.timeout_s=25", "--search.replicas=2"), "are 2,500", "timeout_s 26 "),
    ],
)
def test_settings_under_which_training_has_failed_are_told_with_a_remedy(
    overrides: tuple[str, ...], said: str, remedy: str
) -> None:
    (risk,) = risks(configured(*overrides))
    assert said in risk.said
    assert remedy in risk.remedy


@pytest.mark.parametrize(
    "overrides",
    [
        ("--learner.surrogate=gspo", "--learner.clip=3e-4"),
        ("--learner.clip=0.5",),
        ("--search.reranker=cross", "--search.timeout_s=26", "--search.replicas=2"),
        ("--search.reranker=cross", "--search.url=http://127.0.0.1:8000"),
    ],
)
def test_settings_that_are_well_have_no_risk(overrides: tuple[str, ...]) -> None:
    assert list(risks(configured(*overrides))) == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_no_recipe_has_a_risk(recipe: Path) -> None:
    assert list(risks(configured(recipe=recipe))) == []


def test_the_7b_recipe_gives_its_queue_of_queries_time() -> None:
    (recipe,) = [path for path in RECIPES if path.stem == "qwen2.5-7b"]
    (risk,) = risks(configured("--search.timeout_s=30", recipe=recipe))
    assert "2,560 rollouts" in risk.said

"""A template that writes the date: one day for a run, its resumption and its evaluations, whatever day it is then."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from calibadv.checkpoints.identity import Identity, differences
from calibadv.checkpoints.manifest import Manifest
from calibadv.checkpoints.storage import Kind, Storage
from calibadv.cluster.factories import make_dialogue
from calibadv.cluster.prompts import check_prompts, date_of_answers, with_date
from calibadv.config import Config, ConfigError, load_config
from calibadv.evaluation.identity import identity
from calibadv.evaluation.models import EvaluatedModel, find_models
from calibadv.methods import make_method
from calibadv.pocket import policy_path
from calibadv.training.checkpoints import RUN
from calibadv.training.resume import date_of_checkpoint
from calibadv.types import Question

DAY = "2025-03-09"

METHOD = make_method("calibadv", {})


def dated_model(folder: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(policy_path())
    tokenizer.chat_template = "Today: {{ strftime_now('%d %B %Y') }}\n" + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_bytes((policy_path() / "config.json").read_bytes())
    return folder


def prompt(config: Config, model: Path) -> str:
    dialogue = make_dialogue(config, config.run_method(), str(model))
    return dialogue.text(dialogue.prompt_ids("who?"))


def test_a_run_keeps_the_day_on_which_it_began(tmp_path: Path) -> None:
    model = dated_model(tmp_path)
    config = with_date(load_config(None), METHOD, model)
    assert config.rollout.date == date.today().isoformat()
    assert with_date(load_config(None), METHOD, model, DAY).rollout.date == DAY
    given = load_config(None, {"rollout.date": DAY})
    assert with_date(given, METHOD, model, "2001-01-01") == given
    assert prompt(given, model).startswith("Today: 09 March 2025\n")


def test_a_template_without_a_date_changes_no_configuration() -> None:
    assert with_date(load_config(None), METHOD, policy_path()) == load_config(None)


def test_a_checkpoint_gives_its_day_to_whoever_goes_on_and_refuses_another(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "checkpoints"))
    assert date_of_checkpoint(storage) == ""
    kept = Identity(load_config(None, {"rollout.date": DAY}).flat(), {})

    def write(folder: Path) -> None:
        (folder / "identity.json").write_text(json.dumps(kept.to_dict()))

    draft = storage.draft(Kind.CHECKPOINT, 3)
    draft.commit(Manifest(3, 1, draft.add(RUN, write), ()))
    assert date_of_checkpoint(storage) == DAY
    model = dated_model(tmp_path / "model")
    now = Identity(with_date(load_config(None), METHOD, model, date_of_checkpoint(storage)).flat(), {})
    assert differences(kept, now, {}) == []
    tomorrow = Identity(with_date(load_config(None), METHOD, model).flat(), {})
    assert "rollout.date was '2025-03-09'" in "".join(differences(kept, tomorrow, {}))


def test_an_evaluation_asks_as_the_run_was_asked_and_goes_on_with_its_own_day(tmp_path: Path) -> None:
    run = tmp_path / "run"
    model = dated_model(run / "model")
    (model / "model.safetensors").write_bytes(b"")
    (run / "metrics.jsonl").write_text("")
    (run / "config.toml").write_text(f'[rollout]\ndate = "{DAY}"\nsystem = "Be brief."\n')
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[rollout]\nengine = 'torch'\n")
    (found,) = find_models([str(run)], recipe, {})
    assert (found.config.rollout.date, found.config.rollout.system) == (DAY, "Be brief.")
    about = identity(EvaluatedModel("m", model, found.config), "", (), "")
    assert (about["dialogue"]["date"], about["dialogue"]["system"]) == (DAY, "Be brief.")
    (tmp_path / "manifest.json").write_text(json.dumps(about))
    assert date_of_answers([tmp_path / "nowhere.json", tmp_path / "manifest.json"]) == DAY
    plain = identity(EvaluatedModel("m", policy_path(), load_config(None)), "", (), "")
    assert not {"date", "system"} & set(plain["dialogue"])  # answers of earlier releases stay comparable


def test_the_prompt_of_most_tokens_is_found_behind_longer_ones_of_fewer() -> None:
    config = load_config(None)
    english = [Question(f"en/{i}", "who was the first king ? " * 40, ("x",)) for i in range(40)]
    check_prompts(config, METHOD, policy_path(), english)
    dense = Question("ja/1", "\U0001f980\u6f22" * 450, ("x",))  # 900 characters, and 3,150 bytes
    with pytest.raises(ValueError, match="the prompt of question 'ja/1' has 3610 tokens, the budget is 2048"):
        check_prompts(config, METHOD, policy_path(), [*english, dense])


@pytest.mark.parametrize("dialogue", ["tags", "hermes"])
def test_observations_that_never_fit_are_refused_before_a_run(dialogue: str) -> None:
    config = load_config(None, {"rollout.dialogue": dialogue, "rollout.max_observation_tokens": 2})
    with pytest.raises(ValueError, match=r"needs at least \d+ tokens, the limit is 2: raise --rollout.max_observ"):
        check_prompts(config, METHOD, policy_path(), [])


@pytest.mark.parametrize("given", ["tomorrow", "2025-02-30", "09.03.2025"])
def test_what_is_no_day_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="expected a day as 2026-11-28"):
        load_config(None, {"rollout.date": given})

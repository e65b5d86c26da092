"""reward.tokens reaches rollouts, evaluations and studies, and no two ways of scoring share a table or a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibadv.checkpoints.identity import Identity, differences
from calibadv.config import Config, ConfigError, load_config
from calibadv.data.digests import questions_digest
from calibadv.evaluation.identity import search_identity
from calibadv.evaluation.models import find_models
from calibadv.evaluation.plan import check_one_search, one_scoring
from calibadv.evaluation.prediction import predict
from calibadv.rewards.step_search import key_score, tfidf_cosines
from calibadv.rewards.turn_success import answer_documents
from calibadv.rollout.agent import Agent
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.training.metrics import evaluation_metrics, predictions
from calibadv.types import Document, Group, Question, TokenUnit
from tests.evaluation.test_models import write_run
from tests.rollout.scripted import TOKENIZER, Library, Script
from tests.studies.plan import make_plan

QUESTION = Question("q/1", "在哪里?", ("北京大学",), tokens=TokenUnit.UNSPACED)
ANSWER = "<think> b </think><answer> 北京的大学。 </answer>"
EXACT = "<think> b </think><answer> 《北京大学》 </answer>"


async def rolled(question: Question, answer: str) -> Group:
    agent = Agent(TagsDialogue(TOKENIZER, "", "Q {question}\n"), Script([answer]), Library())
    return Group(question, (await agent.roll(question, temperature=0.0, seed_of_turn=lambda turn: turn),))


async def test_a_rollout_is_rewarded_and_an_evaluation_scored_by_characters() -> None:
    group, exact = await rolled(QUESTION, ANSWER), await rolled(QUESTION, EXACT)
    assert group.trajectories[0].answer_reward == pytest.approx(8 / 9)  # 4 of 5 and 4 of 4 characters
    assert predict(QUESTION, group.trajectories[0]).em == 0
    found = predict(QUESTION, exact.trajectories[0])
    assert (found.f1, found.em, found.cover_em) == (1, 1, 1)
    assert evaluation_metrics(predictions([group, exact]))["eval/em"] == 0.5


async def test_by_words_the_same_rollouts_score_nothing() -> None:
    words = replace(QUESTION, tokens=TokenUnit.WORDS)
    group, exact = await rolled(words, ANSWER), await rolled(words, EXACT)
    metrics = evaluation_metrics(predictions([group, exact]))
    assert metrics["eval/f1"] == metrics["eval/em"] == 0


def test_turn_rewards_look_for_answers_in_the_same_way() -> None:
    documents = {"a": Document("a", "海淀区", "北京大学位于海淀区。"), "b": Document("b", "上海", "上海很大。")}
    assert answer_documents(QUESTION, documents) == {"a"}
    assert answer_documents(replace(QUESTION, tokens=TokenUnit.WORDS), documents) == frozenset()
    assert key_score(["北京的大学"], ["北京大学"], TokenUnit.UNSPACED) == pytest.approx(8 / 9)
    assert key_score(["北京的大学"], ["北京大学"]) == 0
    np.testing.assert_allclose(tfidf_cosines(["北京"], ["京北"], TokenUnit.UNSPACED), [[1.0]], rtol=1e-6)
    assert tfidf_cosines(["北京"], ["京北"]).tolist() == [[0.0]]


def test_digests_of_what_is_scored_as_ever_stay_and_others_differ() -> None:
    words = Question("q/1", "Who?", ("Ann", "Bea"), ("s",), ("d",), metadata={"hops": "2"})
    assert questions_digest([words]) == "d832cd9e781fbc54d8a2a538c1eae58a"  # of 512cbd2, before there were two ways
    assert questions_digest([replace(words, tokens=TokenUnit.UNSPACED)]) != questions_digest([words])
    assert "tokens" not in search_identity(Config())
    config = load_config(None, {"search.tokens": "unspaced"})
    assert search_identity(config)["tokens"] == "unspaced"
    assert config.search.tokens == "unspaced"


def test_a_search_function_is_part_of_an_evaluation_only_where_there_is_one() -> None:
    assert "tool" not in search_identity(Config())  # answers of a release without it can be gone on with
    assert search_identity(load_config(None, {"search.tool": "mine.py:search"}))["tool"] == "mine.py:search"


def test_a_run_does_not_go_on_with_another_way_of_scoring() -> None:
    defaults = Config().flat()
    other = Identity({**defaults, "reward.tokens": "unspaced"}, {})
    older = Identity({key: value for key, value in defaults.items() if key != "reward.tokens"}, {})
    assert differences(older, Identity(defaults, {}), defaults) == []
    assert differences(older, other, defaults) == ["reward.tokens was 'words', now 'unspaced'"]


def test_models_of_one_table_are_scored_and_search_alike(tmp_path: Path) -> None:
    chinese = write_run(tmp_path / "runs" / "zh", "--reward.tokens", "unspaced", "--search.tokens", "unspaced")
    plain = write_run(tmp_path / "runs" / "en")
    models = find_models([str(chinese), str(plain)], None, {})
    with pytest.raises(ValueError, match=r"reward.tokens is 'unspaced' for zh and 'words' for en: .*--reward.tokens"):
        one_scoring(models)
    with pytest.raises(ValueError, match=r"search.tokens is 'unspaced' for zh and 'words' for en: .*--search.tokens"):
        check_one_search(models)
    unspaced = {"reward.tokens": "unspaced", "search.tokens": "unspaced"}
    both = find_models([str(chinese), str(plain)], None, unspaced)
    assert one_scoring(both) == TokenUnit.UNSPACED
    check_one_search(both)


def test_with_a_recipe_a_model_is_still_scored_as_its_run_was(tmp_path: Path) -> None:
    chinese = write_run(tmp_path / "runs" / "zh", "--reward.tokens", "unspaced")
    (model,) = find_models([str(chinese)], Path("workflows/recipes/pocket.toml").absolute(), {})
    assert model.config.reward.tokens == TokenUnit.UNSPACED


def test_cells_of_one_study_are_scored_alike(tmp_path: Path) -> None:
    cell = '[[cell]]\nname = "{0}"\nmethod = "grpo"\n'
    odd = 'settings.reward.tokens = "unspaced"\n'
    with pytest.raises(
        ConfigError, match=r"has reward.tokens = 'unspaced', the other cells have 'words': they cannot be"
    ):
        make_plan(tmp_path, cell.format("a") + cell.format("b") + cell.format("c") + odd)
    plan = make_plan(tmp_path, cell.format("a") + odd + cell.format("b") + odd)
    assert {run.config.reward.tokens for run in plan.runs} == {TokenUnit.UNSPACED}

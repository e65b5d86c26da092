"""What a model's README says, by hand."""

from __future__ import annotations

from dataclasses import replace

from calibadv.config import load_config
from calibadv.evaluation.prediction import Prediction
from calibadv.training.card import model_card
from tests.tracking.fake_run import record

SUMMARY = {f"{name}_{when}": 0.25 for name in ("f1", "em", "format", "searches") for when in ("before", "after")}


def answer(f1: float | None) -> Prediction:
    scores = {"f1": f1, "em": f1, "cover_em": f1, "format": f1, "searches": 1, "tokens": 9, "perplexity": 1.0}
    asked = {"id": "q", "question": "?", "golden_answers": ("a",), "answer": "a", "hops": 1, "type": None}
    return Prediction(**asked, **scores, truncated=False, infra_failed=f1 is None)  # type: ignore[arg-type]


def test_the_card_has_method_data_figures_with_intervals_and_a_rollout() -> None:
    config = load_config(None, {"method.params.lam": 0.5, "run.seed": 3})
    card = model_card(config, SUMMARY, {"train": "abc"}, [answer(0.5), answer(0.5), answer(None)], record())
    assert card.startswith("# calibadv-seed3\n")
    assert "lam = 0.5" in card
    assert "3 held-out questions of pocket" in card
    assert "0.500 to 0.500" in card  # equal answers leave no room
    assert "`abc`" in card
    assert "> Where was the director born?" in card
    assert "<search>q</search>" in card
    assert "its licence holds" in card


def test_a_rollout_cannot_end_its_own_block() -> None:
    hostile = record()
    turns = [replace(turn, text=f"```\n# Evaluation\n{turn.text}") for turn in hostile.turns]
    hostile = replace(hostile, question="Where?\n\n# Evaluation", turns=turns)
    card = model_card(load_config(None, {}), SUMMARY, {}, [answer(0.5)], hostile)
    assert "> Where? # Evaluation\n" in card
    assert card.split("```text\n")[1].count("```") == 1  # its end


def test_one_answer_has_no_interval() -> None:
    card = model_card(load_config(None, {}), SUMMARY, {}, [answer(0.5)], None)
    assert " to " not in card.split("## Data")[0].split("## Evaluation")[1]
    assert "One rollout" not in card

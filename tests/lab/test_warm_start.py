"""The recipe makes the start that ships. The whole takes eight minutes: its beginning is held to what it was."""

from __future__ import annotations

import json
from itertools import islice
from statistics import fmean

import pytest
import torch

from calibadv.lab.language import language
from calibadv.lab.warm_start import START, TOLD, drills, load_start, new_policy, padded, warm_start

RECORD = json.loads(START.with_suffix(".json").read_text("utf-8"))


def test_the_recipe_begins_as_it_did_when_it_made_the_start() -> None:
    losses = list(islice(warm_start(new_policy(RECORD["seed"]), RECORD["updates"], RECORD["seed"]), TOLD))
    assert fmean(losses) == pytest.approx(RECORD["mean_loss_of_25"][0], abs=2e-3)


def test_the_shipped_start_continues_the_recipe_s_end() -> None:
    """Its loss on fresh drills is that of a policy that reads; an untrained one knows nothing of them."""
    lang = language()
    batch = list(islice(drills(lang, 99, lambda: 1.0), 48))
    ids_BT, weights_BT = padded(batch, 0)
    counted = weights_BT[:, 1:] > 0

    def loss(policy: torch.nn.Module) -> float:
        with torch.no_grad():
            logits_NV = policy(ids_BT)[:, :-1][counted] @ policy.embed.weight.T
            return float(torch.nn.functional.cross_entropy(logits_NV, ids_BT[:, 1:][counted]))

    assert loss(load_start()) < 0.7
    assert loss(new_policy()) > 4


def test_drills_state_what_stands_there() -> None:
    lang = language()
    for ids, weights in islice(drills(lang, 0, lambda: 1.0), 50):
        words = lang.text(ids).split()
        assert len(ids) == len(weights)
        shown = " ".join(words[: words.index("</information>")])
        for i, word in enumerate(words):
            if word == "so":
                stated = " ".join(words[i + 1 : i + 4])
                assert (stated in shown) == (words[i + 4] != "no")
                if words[i + 4] != "no":
                    assert f"{stated} {words[i + 4]} {words[i + 5]}" in shown

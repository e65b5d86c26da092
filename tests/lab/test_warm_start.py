"""The recipe makes the start that ships. The whole takes eight minutes: its beginning is held to what it was."""

from __future__ import annotations

import json
from itertools import islice
from statistics import fmean

import pytest
import torch

from calibadv.lab.language import language
from calibadv.lab.policy import Policy
from calibadv.lab.tasks import TASKS, TaskName
from calibadv.lab.warm_start import TOLD, Example, dialogues, drills, load_start, new_policy, padded, warm_start

RECORDS = {name: json.loads(task.start.with_suffix(".json").read_text("utf-8")) for name, task in TASKS.items()}
RECORD = RECORDS["plain"]


def loss(policy: Policy, batch: list[Example]) -> float:
    """Nats a token that the agent writes."""
    ids_BT, weights_BT = padded(batch, 0)
    counted = weights_BT[:, 1:] == 1
    with torch.no_grad():
        logits_NV = policy(ids_BT)[:, :-1][counted] @ policy.embed.weight.T
        return float(torch.nn.functional.cross_entropy(logits_NV, ids_BT[:, 1:][counted]))


def test_the_recipe_begins_as_it_did_when_it_made_the_start() -> None:
    losses = list(islice(warm_start(new_policy(RECORD["seed"]), RECORD["updates"], RECORD["seed"]), TOLD))
    assert fmean(losses) == pytest.approx(RECORD["mean_loss_of_25"][0], abs=2e-3)


def test_the_shipped_start_continues_the_recipe_s_end() -> None:
    """Its loss on fresh drills is that of a policy that reads; an untrained one knows nothing of them."""
    batch = list(islice(drills(language(), 99, lambda: 1.0), 48))
    assert all(loss(load_start(task.start), batch) < 0.7 for task in TASKS.values())
    assert loss(new_policy(), batch) > 4


@pytest.mark.parametrize("name", TASKS)
def test_each_task_s_start_is_what_its_own_demonstrator_taught(name: TaskName) -> None:
    batch = list(islice(dialogues(language(), 99, TASKS[name]), 24))
    losses = {other: loss(load_start(task.start), batch) for other, task in TASKS.items()}
    # A quarter of what its record's last updates saw were drills, which it finds easy.
    assert losses[name] == pytest.approx(fmean(RECORDS[name]["mean_loss_of_25"][-4:]), abs=0.25)
    assert losses[name] < 0.8 * min(losses[other] for other in losses if other != name)


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

"""The laboratory's words, passages, questions and search engine."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from calibadv.lab.demonstrator import Demonstrator
from calibadv.lab.diagnostics import language_metrics, mass_metrics
from calibadv.lab.language import LabDialogue, language
from calibadv.lab.tasks import TASKS, TaskName
from calibadv.lab.world import World, best_form, worth
from calibadv.rewards.format import format_reward
from calibadv.tags import parse_action
from calibadv.types import Document, Turn, TurnKind
from tests.build import trajectory, turn

LANG, WORLD = language(), World(7)


def test_every_word_is_a_token_and_text_is_its_ids_again() -> None:
    assert len(LANG.words) == len(set(LANG.words)) == 1024
    ids = LANG.ids(["<think>", "w0", "na3", "</think>"])
    assert LANG.text(ids).split() == ["<think>", "w0", "na3", "</think>"]


def test_a_language_without_a_tail_is_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary of 100 words"):
        language(100)


def test_a_ramble_obeys_the_grammar_and_has_its_mean_length() -> None:
    rng = random.Random(0)
    walks = [LANG.ramble(rng, 10.0) for _ in range(3000)]
    assert all(second in LANG.successors[first] for walk in walks for first, second in pairwise(walk))
    assert np.mean([len(walk) for walk in walks]) == pytest.approx(10.0, abs=0.6)


def test_what_is_left_of_the_language_is_counted_by_hand() -> None:
    first = "w0"
    legal = LANG.successors[first][0]
    illegal = next(word for word in LANG.successors if word not in LANG.successors[first])
    said = {1.0: [["<think>", first, legal, "</think>"]], 0.5: [[first, illegal, "na3"], [LANG.tail[0], legal, "na3"]]}
    rollouts = [
        replace(
            trajectory(reward, [1]),
            turns=tuple(replace(turn(), action_ids=np.array(LANG.ids(words))) for words in turns),
        )
        for reward, turns in said.items()
    ]
    assert language_metrics(rollouts, LANG) == {
        "language/garbled": 1 / 2,
        "language/fillers": 5 / 2,
        "language/legal": 1 / 2,  # of the two transitions from filler to filler
        "length/wrong_over_right": 6 / 4,  # half right is wrong
    }
    masses = mass_metrics([[np.array([1.0, 1.0]), np.array([-0.5])], [np.array([-2.0])]])
    assert masses == {"advantage/net_mass": -0.5, "advantage/absolute_mass": 4.5}


def test_an_observation_holds_its_documents_and_the_prefill() -> None:
    dialogue = LabDialogue(LANG, prefill="<think>")
    ids = dialogue.observation_ids([Document("0", "na1 nb2", "na1 nb2 rel3 na4 nb5")], 64)
    assert dialogue.text(ids) == "<information> na1 nb2 rel3 na4 nb5 ; </information> <think>"
    assert dialogue.text(dialogue.prompt_ids("what ask0 of na1 nb2 ?")) == "what ask0 of na1 nb2 ? <think>"


def test_a_world_is_a_function_of_its_seed() -> None:
    assert World(7).passages == WORLD.passages
    assert World(8).passages != WORLD.passages


def test_an_eighth_of_the_facts_has_no_passage() -> None:
    facts = sum(len(known) for known in WORLD.facts)
    assert len(WORLD.passages) / facts == pytest.approx(0.88, abs=0.02)


def test_the_best_query_word_finds_what_the_worst_misses() -> None:
    found = {1.2: 0, -0.9: 0}
    for index, (entity, relation, _) in enumerate(WORLD.passages[:200]):
        for form in range(4):
            if (value := worth(relation, form)) in found:
                query = " ".join((f"q{relation}_{form}", *WORLD.names[entity]))
                found[value] += str(index) == WORLD.find(query)[0].id
    assert found[1.2] > 190
    assert found[-0.9] < 20
    assert worth(5, best_form(5)) == 1.2


def test_a_question_s_gold_passages_lead_to_its_answer() -> None:
    chain = WORLD.chain(random.Random(3), "lab/x/0")
    hops = int(chain.question.metadata["hops"])
    assert len(chain.relations) == len(chain.question.sub_queries) == hops == len(chain.path) - 1
    if len(chain.question.gold_doc_ids) == hops:
        assert chain.question.gold_passages[-1].endswith(chain.question.golden_answers[0])


def test_streams_of_questions_avoid_what_is_held_out() -> None:
    held_out = WORLD.questions(300, "held out")
    texts = frozenset(question.text for question in held_out)
    trained = WORLD.questions(500, "train 0 1", without=texts)
    assert not texts & {question.text for question in trained}
    assert [q.id for q in WORLD.questions(2, "train 0 2")] == ["lab/train 0 2/0", "lab/train 0 2/1"]


@pytest.mark.parametrize(("name", "ratio"), [("plain", 1.6), ("long-failures", 2.4)])
def test_the_demonstrator_is_always_well_formed_and_longer_where_it_fails(name: TaskName, ratio: float) -> None:
    rng, task = random.Random(1), TASKS[name]
    world = World(7, task.hops)
    player = Demonstrator(world, LANG, rng, task)
    empty = np.zeros(0, np.int64)
    lengths: dict[bool, list[int]] = {True: [], False: []}
    for number in range(300):
        chain = world.chain(rng, str(number))
        actions = [" ".join(segment.words) for segment in player.dialogue(chain) if segment.action]
        parsed = [parse_action(text) for text in actions]
        turns = [
            Turn(action.kind, empty, np.zeros(0, np.float32), empty, text, action.query)
            for action, text in zip(parsed, actions, strict=True)
        ]
        assert parsed[-1].kind is TurnKind.ANSWER
        assert len(turns) <= task.searches + 1
        assert format_reward(turns) == 1
        right = parsed[-1].answer == chain.question.golden_answers[0]
        lengths[right].append(sum(len(text.split()) for text in actions))
    assert len(lengths[True]) > 30
    assert np.mean(lengths[False]) > ratio * np.mean(lengths[True])

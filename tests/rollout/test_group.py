"""A question's group: seeds, retries after a failed search, and greedy evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from calibadv.rewards.judged_answer import UnreadableVerdict
from calibadv.rewards.outcome import Outcome
from calibadv.rewards.own_turns import OwnTurns
from calibadv.rollout.dialogues.hermes import HermesDialogue
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.group import GroupRoller, RolledGroup, without_documents
from calibadv.rollout.plans import chains, number_nodes
from calibadv.rollout.protocols import Result, ToolFailed
from calibadv.rollout.seeds import sampling_seed
from calibadv.types import Document, Group, Question, Trajectory, TurnKind
from tests.build import trajectory, turn
from tests.rollout.chat_templates import QWEN3, with_template
from tests.rollout.scripted import ADA, TOKENIZER, Library, Script, spelled
from tests.rollout.test_chat_dialogue import Policy

QUESTION = Question("test/q", "Where was Ada born?", ("Oslo",))
SEARCH = "<think> a </think><search> Ada </search>"
ANSWER = "<think> b </think><answer> Oslo </answer>"


async def roll(
    script: Script, library: Any, samples: int = 1, *, evaluate: bool = False, **settings: Any
) -> RolledGroup:
    roller = GroupRoller(
        TagsDialogue(TOKENIZER, "", "Q {question}\n"), library, chains(samples), run_seed=8, temperature=0.9, **settings
    )
    action = roller.evaluate if evaluate else roller.train
    return await action(QUESTION, script, step=6, version=5)


async def test_a_group_has_one_trajectory_a_sample_with_its_own_seeds() -> None:
    script = Script([ANSWER] * 3)
    rolled = await roll(script, Library(), 3)
    assert rolled.group is not None
    assert rolled.group.question is QUESTION
    assert [t.policy_version for t in rolled.group.trajectories] == [5, 5, 5]
    assert [s.seed for s in script.samplings] == [sampling_seed(8, 6, "test/q", sample, 0) for sample in range(3)]
    assert {s.temperature for s in script.samplings} == {0.9}
    assert rolled.infra_failed == 0


async def test_a_nucleus_is_for_training_alone() -> None:
    trained, greedy = Script([ANSWER]), Script([ANSWER])
    await roll(trained, Library(), top_p=0.95)
    await roll(greedy, Library(), top_p=0.95, evaluate=True)
    assert [s.top_p for s in trained.samplings] == [0.95]
    assert [(s.temperature, s.top_p) for s in greedy.samplings] == [(0.0, 1.0)]


async def test_every_retrieved_document_is_collected_once() -> None:
    other = Document("oslo", "Oslo", "A town.")
    rolled = await roll(Script([SEARCH, SEARCH, ANSWER]), Library((ADA, other)))
    assert rolled.documents == {"ada": ADA, "oslo": other}
    assert without_documents(rolled).group is rolled.group
    assert without_documents(rolled).documents is None


async def test_a_failed_rollout_is_sampled_again_with_fresh_seeds_and_counted() -> None:
    script = Script([SEARCH, SEARCH, ANSWER])
    rolled = await roll(script, Library(failures=1))
    assert rolled.group is not None
    (trajectory,) = rolled.group.trajectories
    assert len(trajectory.turns) == 2
    assert trajectory.reward == 1
    assert rolled.infra_failed == 1
    seeds = [s.seed for s in script.samplings]
    assert seeds[0] == sampling_seed(8, 6, "test/q", 0, 0)
    assert seeds[1] != seeds[0]  # the first turn of the second attempt
    assert len(set(seeds)) == 3


async def test_a_group_is_dropped_when_its_retries_are_used_up() -> None:
    script = Script([SEARCH] * 3)
    rolled = await roll(script, Library(failures=3), infra_retries=2)
    assert rolled.group is None
    assert rolled.infra_failed == 3
    assert len(script.contexts) == 3


async def test_one_lost_rollout_drops_the_whole_group() -> None:
    # Two rollouts, no retry: the first search fails, the second is answered.
    rolled = await roll(Script([SEARCH, SEARCH, ANSWER]), Library(failures=1), 2, infra_retries=0)
    assert (rolled.group, rolled.infra_failed) == (None, 1)


async def test_a_rollout_without_a_verdict_drops_the_group_and_is_counted() -> None:
    said = iter([1.0, UnreadableVerdict("Maybe."), ConnectionError("no reply")])

    async def judge(_question: Question, _trajectory: Trajectory) -> float:
        verdict = next(said)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    rolled = await roll(Script([ANSWER] * 3), Library(), 3, outcome=Outcome(judge, retries=0))
    assert (rolled.group, rolled.infra_failed) == (None, 0)
    assert rolled.counts == {"reward/failed_count": 2.0, "reward/unreadable_count": 1.0}


async def test_turns_that_cannot_be_scored_drop_the_group_and_are_counted() -> None:
    def broken(_question: Question, _trajectory: Trajectory, _documents: Any) -> list[float]:
        raise ConnectionError("away")

    rolled = await roll(Script([ANSWER] * 2), Library(), 2, score_turns=OwnTurns(broken, retries=0))
    assert (rolled.group, rolled.infra_failed) == (None, 0)
    assert rolled.counts == {"reward/failed_count": 1.0}
    greedy = await roll(Script([ANSWER]), Library(), evaluate=True, score_turns=OwnTurns(broken, retries=0))
    assert greedy.group is not None  # nobody scores the turns of an evaluation


async def test_evaluation_is_one_greedy_rollout() -> None:
    script = Script([SEARCH, ANSWER])
    rolled = await roll(script, Library(), 5, evaluate=True)
    assert rolled.group is not None
    assert len(rolled.group.trajectories) == 1
    assert [s.temperature for s in script.samplings] == [0, 0]
    assert rolled.group.trajectories[0].reward == 1


def varied(group: Group) -> bool:
    return len({trajectory.reward for trajectory in group.trajectories}) > 1


WRONG = ANSWER.replace("Oslo", "Rome")


async def train_one_of(script: Script, library: Any, questions: int = 3, **settings: Any) -> RolledGroup:
    dialogue = TagsDialogue(TOKENIZER, "", "Q {question}\n")
    roller = GroupRoller(dialogue, library, chains(2), run_seed=8, infra_retries=0, require_search=False, **settings)
    asked = [replace(QUESTION, id=f"test/{i}") for i in range(questions)]
    return await roller.train_one_of(asked, varied, script, step=6, version=5)


async def test_another_question_is_asked_in_place_of_one_whose_group_would_not_train() -> None:
    script = Script([ANSWER, ANSWER, ANSWER, WRONG, "never asked"])
    rolled = await train_one_of(script, Library())
    assert rolled.group is not None
    assert rolled.group.question.id == "test/1"
    assert [t.reward for t in rolled.group.trajectories] == [1, 0]
    assert [s.seed for s in script.samplings[2:]] == [sampling_seed(8, 6, "test/1", sample, 0) for sample in range(2)]
    assert rolled.counts == {"rollout/spare_groups": 1, "rollout/spare_tokens": 2 * len(spelled(ANSWER))}


async def test_the_first_question_s_group_is_left_where_none_would_train() -> None:
    rolled = await train_one_of(Script([ANSWER] * 4), Library(), questions=2)
    assert rolled.group is not None
    assert rolled.group.question.id == "test/0"
    assert rolled.counts == {"rollout/spare_groups": 1, "rollout/spare_tokens": 2 * len(spelled(ANSWER))}


async def test_what_the_environment_failed_is_not_replaced_and_a_failed_spare_is_passed_over() -> None:
    first = await train_one_of(Script([SEARCH, ANSWER]), Library(failures=1))
    assert (first.group, first.infra_failed, first.counts["rollout/spare_groups"]) == (None, 1, 0)
    later = await train_one_of(Script([ANSWER, ANSWER, SEARCH, ANSWER, ANSWER, WRONG]), Library(failures=1))
    assert later.group is not None
    assert later.group.question.id == "test/2"
    assert (later.infra_failed, later.counts["rollout/spare_groups"]) == (1, 2)


async def test_a_turn_that_leaves_of_a_spare_tree_share_is_counted_once() -> None:
    shared = turn(10)
    leaves = [replace(trajectory(0.0, [1]), turns=(shared, turn(2, kind=TurnKind.ANSWER))) for _ in range(2)]

    class Trees(GroupRoller):
        async def train(self, question: Question, *_: Any, **__: Any) -> RolledGroup:
            return RolledGroup(Group(question, number_nodes(leaves)))

    roller = Trees(TagsDialogue(TOKENIZER, "", "Q {question}\n"), Library(), chains(2), run_seed=8)
    asked = [replace(QUESTION, id=f"test/{i}") for i in range(2)]
    rolled = await roller.train_one_of(asked, varied, Script([]), step=6, version=5)
    assert rolled.counts["rollout/spare_tokens"] == 10 + 2 * 2


async def test_what_each_group_counts_is_counted_whichever_is_chosen() -> None:
    async def judge(question: Question, trajectory: Trajectory) -> float:
        if question.id == "test/1":
            raise ConnectionError("no reply")
        return trajectory.answer_reward

    rolled = await train_one_of(Script([ANSWER] * 5 + [WRONG]), Library(), outcome=Outcome(judge, retries=0))
    assert rolled.group is not None
    assert rolled.group.question.id == "test/2"
    spare = {"rollout/spare_groups": 2, "rollout/spare_tokens": 2 * len(spelled(ANSWER))}  # a lost group has no tokens
    assert rolled.counts == {**spare, "reward/failed_count": 2}


async def test_a_tool_that_fails_drops_the_group_and_is_counted_by_its_name() -> None:
    async def broken(arguments: Mapping[str, Any]) -> Result:
        raise ToolFailed(f"no {arguments}")

    call = '<think>\na\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call><|im_end|>'
    dialogue = HermesDialogue(with_template(QWEN3), template="Q {question}")
    policy = Policy([call] * 2, dialogue)
    roller = GroupRoller(dialogue, Library(), chains(1), run_seed=8, infra_retries=1, tools={"add": broken})
    rolled = await roller.train(QUESTION, policy, step=6, version=5)
    assert (rolled.group, rolled.infra_failed, rolled.counts) == (None, 2, {"tool/add_failed": 2.0})

"""One rollout by hand: which tokens go in, when it ends, and what it is scored."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from calibadv.rollout.agent import Agent, Limits
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.protocols import StopReason
from calibadv.tags import PRE_THINK, RETRY_MESSAGE
from calibadv.types import Question, Trajectory, TurnKind
from tests.rollout.scripted import ADA, TOKENIZER, Library, Script, spelled

QUESTION = Question("test/q", "Where was Ada born?", ("Oslo", "Kristiania"))
SEARCH = "<think> a </think><search> Ada </search>"
ANSWER = "<think> b </think><answer> Oslo </answer>"
LENGTH = StopReason.LENGTH


async def roll(script: Script, library: Library | None = None, *, prefill: str = "", **settings: Any) -> Trajectory:
    agent = Agent(TagsDialogue(TOKENIZER, prefill, "Q {question}\n"), script, library or Library(), **settings)
    return await agent.roll(QUESTION, temperature=0.7, seed_of_turn=lambda turn: 100 + turn, policy_version=3)


async def test_context_is_prompt_and_sampled_ids_and_observations_never_encoded_again() -> None:
    script = Script([SEARCH, ANSWER])
    trajectory = await roll(script)
    dialogue = TagsDialogue(TOKENIZER, "", "Q {question}\n")
    prompt, observation = dialogue.prompt_ids(QUESTION.text), dialogue.observation_ids([ADA], 1000)
    again = TOKENIZER.encode(SEARCH, add_special_tokens=False)
    assert again != spelled(SEARCH).tolist()  # else this test could not tell the two apart
    np.testing.assert_array_equal(script.contexts[0], prompt)
    np.testing.assert_array_equal(script.contexts[1], [*prompt, *spelled(SEARCH), *observation])
    np.testing.assert_array_equal(trajectory.prompt_ids, prompt)
    first, last = trajectory.turns
    np.testing.assert_array_equal(first.action_ids, spelled(SEARCH))
    np.testing.assert_array_equal(first.logprobs, -np.arange(1, len(spelled(SEARCH)) + 1))
    np.testing.assert_array_equal(first.observation_ids, observation)
    np.testing.assert_array_equal(last.action_ids, spelled(ANSWER))
    assert len(last.observation_ids) == 0
    assert trajectory.num_tokens == len(script.contexts[1]) + len(spelled(ANSWER))


async def test_search_then_answer_is_scored_and_carries_its_version() -> None:
    library = Library()
    trajectory = await roll(Script([SEARCH, ANSWER]), library)
    assert library.queries == ["Ada"]
    assert [turn.kind for turn in trajectory.turns] == [TurnKind.SEARCH, TurnKind.ANSWER]
    assert [turn.query for turn in trajectory.turns] == ["Ada", None]
    assert [turn.doc_ids for turn in trajectory.turns] == [("ada",), ()]
    assert [turn.text for turn in trajectory.turns] == [SEARCH, ANSWER]
    assert trajectory.answer == "Oslo"
    assert (trajectory.answer_reward, trajectory.format_reward, trajectory.reward) == (1, 1, 1)
    assert trajectory.policy_version == 3
    assert (trajectory.truncated, trajectory.forced_final, trajectory.infra_failed) == (False, False, False)


async def test_reward_is_the_product_of_answer_and_format() -> None:
    malformed = await roll(Script([SEARCH, "<answer> in Oslo </answer>"]))  # no think; F1 of "in oslo" is 2/3
    assert malformed.answer_reward == pytest.approx(2 / 3)
    assert (malformed.format_reward, malformed.reward) == (0, 0)


async def test_an_answer_ends_the_rollout_whatever_follows_in_the_script() -> None:
    script = Script([ANSWER, SEARCH])
    trajectory = await roll(script)
    assert len(script.contexts) == len(trajectory.turns) == 1
    assert trajectory.format_reward == 0  # a search is required


async def test_an_answer_without_search_is_well_formed_where_none_is_required() -> None:
    assert (await roll(Script([ANSWER]), require_search=False)).reward == 1


async def test_a_void_turn_ends_the_rollout_without_answer_and_format() -> None:
    script = Script([SEARCH, "<think> I give up", ANSWER])
    trajectory = await roll(script)
    assert [turn.kind for turn in trajectory.turns] == [TurnKind.SEARCH, TurnKind.VOID]
    assert (trajectory.answer, trajectory.format_reward, trajectory.reward) == (None, 0, 0)
    assert not trajectory.truncated


async def test_a_blank_query_is_void_and_never_searched() -> None:
    library = Library()
    trajectory = await roll(Script(["<think> a </think><search>  </search>", ANSWER]), library)
    assert trajectory.turns[-1].kind is TurnKind.VOID
    assert library.queries == []


async def test_retry_goes_on_after_a_void_turn_with_the_correction() -> None:
    script = Script([SEARCH, "<think> hm", ANSWER])
    trajectory = await roll(script, prefill=PRE_THINK, on_void_turn="retry")
    assert [turn.kind for turn in trajectory.turns] == [TurnKind.SEARCH, TurnKind.VOID, TurnKind.ANSWER]
    correction = TOKENIZER.decode(trajectory.turns[1].observation_ids, skip_special_tokens=False)
    assert correction == f"{RETRY_MESSAGE}<think>"
    observation = TOKENIZER.encode(f"{RETRY_MESSAGE}<think>", add_special_tokens=False)
    np.testing.assert_array_equal(script.contexts[2], [*script.contexts[1], *spelled("<think> hm"), *observation])
    assert (trajectory.answer_reward, trajectory.format_reward) == (1, 0)


async def test_the_turn_after_the_last_search_can_only_answer() -> None:
    library = Library()
    trajectory = await roll(Script([SEARCH] * 3), library, limits=Limits(max_turns=2))
    assert len(trajectory.turns) == 3
    assert trajectory.forced_final
    assert len(library.queries) == 2  # the third search is not carried out
    assert trajectory.turns[2].doc_ids == ()
    assert (trajectory.answer, trajectory.reward, trajectory.truncated) == (None, 0, False)


async def test_an_answer_after_the_last_search_is_no_forced_end() -> None:
    trajectory = await roll(Script([SEARCH, SEARCH, ANSWER]), limits=Limits(max_turns=2))
    assert not trajectory.forced_final
    assert trajectory.reward == 1


async def test_retry_after_the_last_turn_ends() -> None:
    trajectory = await roll(Script(["a", "b"]), on_void_turn="retry", limits=Limits(max_turns=1))
    assert [len(turn.observation_ids) > 0 for turn in trajectory.turns] == [True, False]


async def test_an_observation_that_does_not_fit_ends_the_rollout_truncated_with_all_its_context() -> None:
    whole = Script([SEARCH, ANSWER])
    await roll(whole)
    needed = len(whole.contexts[1])  # context before the second turn
    script = Script([SEARCH, ANSWER])
    cut = await roll(script, limits=Limits(max_prompt_tokens=60, max_tokens=needed))  # no room for an answer
    assert cut.truncated
    assert len(script.contexts) == len(cut.turns) == 1
    assert cut.turns[0].doc_ids == ("ada",)  # it was searched and found; it was only not read
    assert len(cut.turns[0].observation_ids) == 0
    np.testing.assert_array_equal(cut.prompt_ids, whole.contexts[0])
    assert (cut.answer, cut.reward, cut.forced_final) == (None, 0, False)
    one_more = Script([SEARCH, ("<", LENGTH)])
    assert len((await roll(one_more, limits=Limits(max_prompt_tokens=60, max_tokens=needed + 1))).turns) == 2
    assert one_more.samplings[1].max_tokens == 1  # exactly the room that is left


async def test_a_turn_cut_by_its_token_limit_is_a_truncated_void_turn() -> None:
    for on_void_turn in ("stop", "retry"):
        script = Script([SEARCH, ("<think> and on and on", LENGTH), ANSWER])
        trajectory = await roll(script, on_void_turn=on_void_turn)
        assert trajectory.truncated
        assert trajectory.turns[-1].kind is TurnKind.VOID
        assert len(trajectory.turns[-1].observation_ids) == 0  # no correction that nobody reads
        assert len(script.contexts) == 2


async def test_a_complete_action_at_the_limit_is_not_truncated() -> None:
    trajectory = await roll(Script([(SEARCH, LENGTH), (ANSWER, LENGTH)]))
    assert (trajectory.reward, trajectory.truncated) == (1, False)


@pytest.mark.parametrize("fails", [0, 1])
async def test_a_failed_search_is_marked_and_never_scored(fails: int) -> None:
    script, library = Script([SEARCH, SEARCH, ANSWER]), Library()

    async def search(query: str) -> Any:
        library.failures = int(len(library.queries) == fails)
        return await library(query)

    trajectory = await roll(script, search)
    assert trajectory.infra_failed
    assert not trajectory.truncated
    assert len(script.contexts) == len(trajectory.turns) == fails + 1
    assert trajectory.turns[-1].doc_ids == ()
    assert len(trajectory.turns[-1].observation_ids) == 0  # nothing about the failure is ever told to the model
    assert (trajectory.answer, trajectory.answer_reward, trajectory.reward) == (None, 0, 0)


async def test_a_bug_in_the_search_is_not_taken_for_its_failure() -> None:
    async def broken(query: str) -> Any:
        raise TypeError(f"a bug with {query}")

    with pytest.raises(TypeError, match="a bug with Ada"):
        await roll(Script([SEARCH]), broken)


async def test_prefilled_think_counts_in_the_format_and_is_not_an_action() -> None:
    script = Script([SEARCH.removeprefix("<think>"), ANSWER.removeprefix("<think>")])
    trajectory = await roll(script, prefill=PRE_THINK)
    think = TOKENIZER.convert_tokens_to_ids("<think>")
    assert trajectory.prompt_ids[-1] == think
    assert trajectory.turns[0].observation_ids[-1] == think
    assert trajectory.reward == 1
    assert (await roll(Script([SEARCH, ANSWER]), prefill=PRE_THINK)).format_reward == 0  # a second <think>


async def test_each_turn_is_sampled_with_its_seed_and_the_turns_budget() -> None:
    script = Script([SEARCH, ANSWER])
    await roll(script, limits=Limits(max_turn_tokens=77))
    assert [s.seed for s in script.samplings] == [100, 101]
    assert {s.temperature for s in script.samplings} == {0.7}
    assert [s.max_tokens for s in script.samplings] == [77, 77]
    assert script.samplings[0].stop == ("</search>", "</answer>")


async def test_documents_are_cut_to_the_observation_budget() -> None:
    trajectory = await roll(Script([SEARCH, ANSWER]), limits=Limits(max_observation_tokens=12))
    assert len(trajectory.turns[0].observation_ids) == 12
    assert TOKENIZER.decode(trajectory.turns[0].observation_ids).endswith("</information>\n\n")


async def test_a_prompt_over_its_budget_names_question_length_and_option() -> None:
    length = len(TagsDialogue(TOKENIZER, "", "Q {question}\n").prompt_ids(QUESTION.text))
    message = rf"'test/q' has {length} tokens, the budget is {length - 1}: raise --rollout.max_prompt_tokens"
    with pytest.raises(ValueError, match=message):
        await roll(Script([]), limits=Limits(max_prompt_tokens=length - 1))
    assert (await roll(Script([ANSWER]), limits=Limits(max_prompt_tokens=length))).answer == "Oslo"


@pytest.mark.parametrize("tail", [".", "\n\n", "</"])
async def test_what_shares_a_closing_tags_last_token_is_sampled_and_not_read(tail: str) -> None:
    search, answer = f"{SEARCH}{tail}", f"{ANSWER}{tail}"
    library = Library()
    trajectory = await roll(Script([search, answer]), library)
    assert [turn.text for turn in trajectory.turns] == [SEARCH, ANSWER]
    assert (library.queries, trajectory.answer, trajectory.format_reward) == (["Ada"], "Oslo", 1.0)
    for turn, written in zip(trajectory.turns, (search, answer), strict=True):
        np.testing.assert_array_equal(turn.action_ids, spelled(written))
        assert len(turn.logprobs) == len(turn.action_ids)


async def test_text_behind_a_tag_that_did_not_stop_sampling_breaks_the_format() -> None:
    trajectory = await roll(Script([SEARCH, (f"{ANSWER} more", StopReason.EOS)]))
    assert (trajectory.answer, trajectory.format_reward) == ("Oslo", 0.0)


async def test_the_tokens_of_the_answer_are_known_and_a_search_has_none() -> None:
    trajectory = await roll(Script([SEARCH, ANSWER]), Library())
    search, answer = trajectory.turns
    assert search.answer_span is None
    assert answer.answer_span is not None
    first, end = answer.answer_span
    assert 0 < first < end <= len(answer.action_ids)
    text = TOKENIZER.decode(answer.action_ids[first:end].tolist())
    assert text.lstrip().startswith("<answer>")
    assert text.rstrip().endswith("</answer>")


async def test_a_rollout_in_tags_is_the_papers_token_for_token() -> None:
    agent = Agent(
        TagsDialogue(TOKENIZER, PRE_THINK),
        Script([SEARCH.removeprefix(PRE_THINK), "<think> hm", ANSWER.removeprefix(PRE_THINK)]),
        Library(),
        on_void_turn="retry",
    )
    rolled = await agent.roll(QUESTION, temperature=0.7, seed_of_turn=lambda turn: turn)
    spans = [rolled.prompt_ids, *(ids for turn in rolled.turns for ids in (turn.action_ids, turn.observation_ids))]
    whole = np.concatenate(spans)
    assert len(whole) == 773
    assert hashlib.sha256(whole.astype("<i8").tobytes()).hexdigest()[:16] == "86cd13831e89155f"
    assert [turn.answer_span for turn in rolled.turns] == [None, None, (11, 34)]


async def test_each_step_is_told_as_it_happens_and_changes_nothing() -> None:
    told: list[Any] = []
    agent = Agent(TagsDialogue(TOKENIZER, "", "Q {question}\n"), Script([SEARCH, ANSWER]), Library())
    trajectory = await agent.roll(QUESTION, temperature=0.7, seed_of_turn=lambda turn: 100 + turn, tell=told.append)
    searched, answered, said = told
    assert (searched.index, searched.said.query, said.index, said.said.answer) == (0, "Ada", 1, "Oslo")
    assert (answered.index, answered.results[0].documents) == (0, (ADA,))
    for turn, untold in zip(trajectory.turns, (await roll(Script([SEARCH, ANSWER]))).turns, strict=True):
        np.testing.assert_array_equal(turn.action_ids, untold.action_ids)
        np.testing.assert_array_equal(turn.observation_ids, untold.observation_ids)

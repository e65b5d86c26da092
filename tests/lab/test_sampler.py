"""The static cache against the plain forward pass, and what the sampler draws."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

from calibadv.lab.language import language
from calibadv.lab.policy import Cache, Policy
from calibadv.lab.sampler import Measures, Sampler, drawn
from calibadv.rollout.protocols import Sampling, StopReason

LANG = language()


@pytest.fixture(scope="module")
def policy() -> Policy:
    torch.manual_seed(0)
    return Policy().requires_grad_(False)


def logprobs_of(policy: Policy, ids: list[int]) -> torch.Tensor:
    """Log-probs [T, V] of what follows each token."""
    return torch.log_softmax(policy(torch.tensor([ids]))[0] @ policy.embed.weight.T, dim=-1)


def test_the_cache_gives_the_forward_pass_token_by_token(policy: Policy) -> None:
    ids_BT = torch.randint(1024, (3, 20))
    whole_BTH = policy(ids_BT)
    cache = Cache(policy, rows=4)
    for t in range(20):
        hidden_BH = cache.step(ids_BT[:, t], torch.full((3,), t))
        torch.testing.assert_close(hidden_BH, whole_BTH[:, t], rtol=1e-4, atol=1e-5)


def test_rows_need_not_keep_step_and_may_be_moved(policy: Policy) -> None:
    ids_BT = torch.randint(1024, (2, 8))
    whole_BTH = policy(ids_BT)
    cache = Cache(policy, rows=3)
    for t in range(4):  # row 1 alone has four tokens, row 0 has one that is written over and over
        cache.step(torch.stack([ids_BT[0, 0], ids_BT[1, t]]), torch.tensor([0, t]))
    cache.move(1, 0, positions=4)
    hidden_BH = cache.step(ids_BT[1:, 4], torch.tensor([4]))
    torch.testing.assert_close(hidden_BH[0], whole_BTH[1, 4], rtol=1e-4, atol=1e-5)


def test_greedy_tokens_are_the_likeliest_and_log_probs_the_policy_s(policy: Policy) -> None:
    prompt = np.array(LANG.ids(["what", "ask1", "of", "na2", "nb3", "?"]))
    made = asyncio.run(Sampler(policy, LANG, rows=1)(prompt, Sampling(6, temperature=0.0)))
    logp = logprobs_of(policy, [*prompt.tolist(), *made.ids.tolist()])
    for i, (token, logprob) in enumerate(zip(made.ids, made.logprobs, strict=True)):
        assert int(logp[5 + i].argmax()) == token
        assert float(logp[5 + i, token]) == pytest.approx(logprob, abs=1e-4)


def test_a_turn_that_goes_on_is_not_prefilled_again(policy: Policy) -> None:
    sampler, fed = Sampler(policy, LANG, rows=2), []
    step = sampler._cache.step
    sampler._cache.step = lambda ids, at: fed.append(len(ids)) or step(ids, at)  # type: ignore[method-assign]

    async def two_turns() -> np.ndarray:
        prompt = np.array([1, 2, 3])
        first = await sampler(prompt, Sampling(4, seed=1))
        whole = np.concatenate([prompt, first.ids, [7, 8]])
        second = await sampler(whole, Sampling(4, seed=2))
        return np.concatenate([whole, second.ids])

    ids = asyncio.run(two_turns())
    assert sum(fed) == len(ids) - 1  # each token once, but the last, which nothing follows


def test_equal_seeds_give_equal_tokens_whatever_else_is_sampled(policy: Policy) -> None:
    prompt = np.array([1, 2, 3])

    async def among(others: int) -> list[int]:
        sampler = Sampler(policy, LANG, rows=2)  # fewer rows than turns: some wait
        turns = [sampler(prompt, Sampling(12, seed=5))]
        turns += [sampler(np.array([4 + i, 5]), Sampling(3 + i, seed=i)) for i in range(others)]
        return (await asyncio.gather(*turns))[0].ids.tolist()

    alone = asyncio.run(among(0))
    assert asyncio.run(among(3)) == alone
    assert len(alone) == 12


@pytest.mark.parametrize(("lengths", "place"), [([3, 12], 1), ([3, 12, 3], 1), ([3, 3, 12, 3], 2)])
def test_a_turn_goes_on_where_others_have_ended(policy: Policy, lengths: list[int], place: int) -> None:
    async def among(lengths: list[int], place: int) -> list[int]:
        sampler = Sampler(policy, LANG, rows=len(lengths))
        seeds = [5 if i == place else 10 + i for i in range(len(lengths))]
        turns = [
            sampler(np.array([seed, 2, 3]), Sampling(n, seed=seed)) for n, seed in zip(lengths, seeds, strict=True)
        ]
        async with asyncio.timeout(60):
            return (await asyncio.gather(*turns))[place].ids.tolist()

    assert asyncio.run(among(lengths, place)) == asyncio.run(among([12], 0))


@pytest.mark.parametrize(("temperature", "logprobs_at"), [(4.0, 1.0), (0.25, 4.0)])
def test_tokens_are_of_the_turn_s_temperature_and_log_probs_of_the_sampler_s(
    policy: Policy, temperature: float, logprobs_at: float
) -> None:
    sampler = Sampler(policy, LANG, rows=1, logprobs_at=logprobs_at)
    made = asyncio.run(sampler(np.array([1, 2]), Sampling(1, temperature=temperature, seed=3)))
    logits_BV = policy(torch.tensor([[1, 2]]))[0, -1:] @ policy.embed.weight.T
    chance_B = torch.from_numpy(np.random.default_rng(3).random(1, dtype=np.float32))
    assert made.ids.tolist() == drawn(torch.softmax(logits_BV / temperature, -1), chance_B, 1.0).tolist()
    expected = torch.log_softmax(logits_BV / logprobs_at, -1)[0, made.ids[0]]
    assert float(made.logprobs[0]) == pytest.approx(float(expected), abs=1e-4)


def test_a_turn_ends_at_its_tag() -> None:
    policy = Policy().requires_grad_(False)
    policy.embed.weight.zero_()
    policy.embed.weight[LANG.id_of["</answer>"], 0] = 50.0
    policy.norm.weight.fill_(1.0)
    policy.embed.weight[1] = torch.nn.functional.one_hot(torch.tensor(0), 96).float() * 9
    for block in policy.layers:
        block.out.weight.zero_()
        block.down.weight.zero_()
    made = asyncio.run(Sampler(policy, LANG, rows=1)(np.array([1]), Sampling(9, seed=0)))
    assert made.stop is StopReason.TAG
    assert made.ids.tolist() == [LANG.id_of["</answer>"]]


def test_a_sequence_beyond_the_positions_is_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="512 positions"):
        asyncio.run(Sampler(policy, LANG, rows=1)(np.zeros(500, np.int64), Sampling(13)))


async def test_weights_that_are_no_numbers_are_an_error_for_all_who_wait() -> None:
    broken = Policy()
    torch.nn.init.constant_(broken.embed.weight, float("nan"))
    sampler = Sampler(broken, LANG, rows=1)
    turns = [sampler(np.array([1, 2]), Sampling(4, seed=seed)) for seed in (0, 1)]
    answers = await asyncio.wait_for(asyncio.gather(*turns, return_exceptions=True), 60)
    assert [isinstance(answer, Exception) for answer in answers] == [True, True]


def test_measures_are_of_the_full_distribution(policy: Policy) -> None:
    sampler = Sampler(policy, LANG, rows=1)
    sampler.measures = Measures()
    made = asyncio.run(sampler(np.array([1, 2]), Sampling(1, seed=3, top_p=0.5)))
    logp_V = logprobs_of(policy, [1, 2])[-1]
    means = sampler.measures.means()
    assert means["policy/entropy"] == pytest.approx(float(-(logp_V.exp() * logp_V).sum()), rel=1e-4)
    assert means["policy/tail_mass"] == pytest.approx(float(logp_V[LANG.first_tail :].exp().sum()), rel=1e-4)
    assert float(made.logprobs[0]) == pytest.approx(float(logp_V[made.ids[0]]), abs=1e-4)


def test_drawn_inverts_the_cumulated_mass() -> None:
    p_BV = torch.tensor([[0.2, 0.5, 0.3]]).repeat(4, 1)
    assert drawn(p_BV, torch.tensor([0.0, 0.21, 0.69, 0.71]), 1.0).tolist() == [0, 1, 1, 2]
    largest = np.nextafter(np.float32(1), np.float32(0))  # of what a generator gives
    for mass in (0.5, 0.7, 1.0, 1.0 + 2**-23):
        assert drawn(torch.tensor([[mass / 2, mass / 2, 0.0]]), torch.tensor([largest]), 1.0).tolist() == [1]


def test_the_nucleus_ends_with_the_word_that_passes_top_p() -> None:
    # By size: 0.5 (word 1), 0.3 (2), 0.2 (0). top_p 0.6 keeps 1 and 2, whose 0.8 is scaled to 1: 0.5 / 0.8 = 0.625.
    p_BV = torch.tensor([[0.2, 0.5, 0.3]]).repeat(4, 1)
    assert drawn(p_BV, torch.tensor([0.0, 0.62, 0.63, 0.999999]), 0.6).tolist() == [1, 1, 2, 2]
    # 0.5 is all that lies before 0.3, so that top_p 0.5 keeps word 1 alone.
    assert drawn(p_BV, torch.tensor([0.0, 0.5, 0.9, 0.99]), 0.5).tolist() == [1, 1, 1, 1]


def test_a_nucleus_of_more_words_than_are_sorted_first_is_whole() -> None:
    p_BV = torch.full((1, 1000), 1e-3)
    picked = {int(drawn(p_BV, torch.tensor([u / 500]), 0.9)) for u in range(500)}
    assert len(picked) > 400


async def test_a_turn_that_waits_may_begin_where_one_of_a_single_token_did(policy: Policy) -> None:
    sampler, prompt = Sampler(policy, language(), rows=1), np.array([1, 2, 3])
    made = await asyncio.gather(*(sampler(prompt, Sampling(1, seed=seed)) for seed in (1, 2)))
    assert [len(turn.ids) for turn in made] == [1, 1]

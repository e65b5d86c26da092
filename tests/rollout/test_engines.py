"""One suite for every engine: what a `GenerateFn` and its `load_weights` promise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from calibadv.rollout.protocols import EngineDied, Generation, Sampling, StopReason
from tests.rollout.engine_suite import (
    ANSWER_TAG,
    MAX_LEN,
    perturbed,
    prompt,
    reference_greedy,
    reference_logprobs,
    save_tiny_model,
)

TOLERANCE = 1e-4  # nats


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


VLLM = [pytest.param(name, marks=pytest.mark.integration) for name in ("vllm", "vllm in a process of its own")]


@pytest.fixture(scope="module", params=["torch", *VLLM])
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[Any]:
    made: Any
    if request.param == "torch":
        from calibadv.rollout.torch_engine import TorchEngine

        made = TorchEngine.from_folder(folder)
    else:
        pytest.importorskip("vllm")
        from calibadv.cluster.vllm_engine import VllmEngine
        from calibadv.cluster.vllm_process_engine import VllmProcessEngine
        from calibadv.cluster.vllm_settings import VllmSettings

        kind = VllmEngine if request.param == "vllm" else VllmProcessEngine
        made = kind(VllmSettings(str(folder), dtype="float32", max_model_len=MAX_LEN, kv_cache_gb=0.1))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def base_weights(engine: Any, model: Any) -> None:
    if engine.version != 0:
        engine.load_weights(model.state_dict().items(), 0)


async def many(engine: Any, seeds: list[int], **sampling: Any) -> list[Generation]:
    return await asyncio.gather(*(engine(prompt(s), Sampling(seed=s, **sampling)) for s in seeds))


async def test_greedy_equals_transformers(engine: Any, model: Any) -> None:
    got = await many(engine, [0, 1, 2], max_tokens=20, temperature=0.0, stop=())
    for seed, generation in enumerate(got):
        assert generation.ids.tolist() == reference_greedy(model, prompt(seed), 20)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
async def test_logprobs_are_those_of_transformers_at_temperature_one(
    engine: Any, model: Any, temperature: float
) -> None:
    for seed, generation in enumerate(await many(engine, [0, 1, 2], max_tokens=30, temperature=temperature, stop=())):
        expected = reference_logprobs(model, prompt(seed), generation.ids)
        assert generation.logprobs.dtype == np.float32
        np.testing.assert_allclose(generation.logprobs, expected, atol=TOLERANCE)


async def test_whoever_listens_hears_each_token_but_the_last_and_gets_the_same(engine: Any, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (free,) = await many(engine, [4], max_tokens=40, stop=())
    texts = [tokenizer.decode([i]) for i in free.ids.tolist()]
    stop = next(texts[n - 1] + texts[n] for n in range(10, 40) if (texts[n - 1] + texts[n]).isascii())
    for end in ((), (stop,)):
        heard: list[int] = []
        (alone,) = await many(engine, [4], max_tokens=40, stop=end)
        listened, _ = await asyncio.gather(
            engine(prompt(4), Sampling(40, seed=4, stop=end, heard=heard.extend)),
            engine(prompt(5), Sampling(40, seed=5, stop=end)),
        )
        assert (listened.ids.tolist(), listened.stop) == (alone.ids.tolist(), alone.stop)
        np.testing.assert_allclose(listened.logprobs, alone.logprobs, atol=TOLERANCE)
        assert heard == listened.ids.tolist()[:-1]


async def test_max_tokens_stops_with_length(engine: Any) -> None:
    (generation,) = await many(engine, [0], max_tokens=5, temperature=0.0, stop=())
    assert len(generation.ids) == len(generation.logprobs) == 5
    assert generation.stop is StopReason.LENGTH


async def test_generation_ends_at_the_models_length(engine: Any) -> None:
    generation = await engine(prompt(0, MAX_LEN - 3), Sampling(max_tokens=50, stop=()))
    assert (len(generation.ids), generation.stop) == (3, StopReason.LENGTH)


async def test_a_stop_string_of_several_tokens_is_kept_whole(engine: Any, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (free,) = await many(engine, [4], max_tokens=60, stop=())
    texts = [tokenizer.decode([i]) for i in free.ids.tolist()]
    # Random bytes are seldom text: an engine may see those of half a character one token later.
    end = next(n for n in range(5, 60) if (texts[n - 2] + texts[n - 1]).isascii())
    text = texts[end - 2] + texts[end - 1]
    first = next(n for n in range(1, 61) if text in tokenizer.decode(free.ids[:n].tolist()))
    (stopped,) = await many(engine, [4], max_tokens=60, stop=("never there", text))
    assert stopped.stop is StopReason.TAG
    assert stopped.ids.tolist() == free.ids[:first].tolist()
    assert len(stopped.logprobs) == first


@pytest.mark.parametrize(
    ("token", "reason"), [(ANSWER_TAG, StopReason.TAG), ("<|end|>", StopReason.EOS)], ids=["added token", "eos"]
)
async def test_a_special_token_stops_and_is_kept(
    engine: Any, model: Any, folder: Path, token: str, reason: StopReason
) -> None:
    token_id = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(token)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # The token's embedding is made the likeliest answer to the prompt's last hidden state.
    with torch.no_grad():
        hidden = model.model(torch.tensor([prompt(5).tolist()])).last_hidden_state[0, -1]
    state["model.embed_tokens.weight"][token_id] = 3 * hidden
    engine.load_weights(state.items(), 7)
    generation = await engine(prompt(5), Sampling(max_tokens=10, temperature=0.0, stop=("</search>", ANSWER_TAG)))
    assert generation.ids.tolist() == [token_id]
    assert generation.stop is reason


async def test_equal_seeds_give_equal_tokens_and_other_seeds_do_not(engine: Any) -> None:
    a, b, c = await asyncio.gather(*(engine(prompt(0), Sampling(20, seed=s, stop=())) for s in (1, 1, 2)))
    assert a.ids.tolist() == b.ids.tolist() != c.ids.tolist()


async def test_tokens_are_drawn_from_the_tempered_distribution(engine: Any, model: Any) -> None:
    draws, temperature = 500, 0.5
    sampled = await asyncio.gather(
        *(engine(prompt(0), Sampling(1, temperature=temperature, seed=s, stop=())) for s in range(draws))
    )
    with torch.no_grad():
        probs_V = (model(torch.tensor([prompt(0).tolist()])).logits[0, -1] / temperature).softmax(-1).numpy()
    counts_V = np.bincount([int(g.ids[0]) for g in sampled], minlength=len(probs_V))
    deviation_V = np.abs(counts_V - draws * probs_V) / np.sqrt(draws * probs_V * (1 - probs_V) + 1)
    assert deviation_V.max() < 4.5  # standard deviations


async def test_a_nucleus_is_sampled_renormalised_and_reports_the_full_distributions_logprobs(
    engine: Any, model: Any
) -> None:
    draws, top_p = 500, 0.6
    sampled = await asyncio.gather(
        *(engine(prompt(0), Sampling(1, seed=s, stop=(), top_p=top_p)) for s in range(draws))
    )
    with torch.no_grad():
        logprobs_V = model(torch.tensor([prompt(0).tolist()])).logits[0, -1].log_softmax(-1).numpy()
    order_V = np.argsort(-logprobs_V)
    kept = int(np.searchsorted(np.exp(logprobs_V)[order_V].cumsum(), top_p)) + 1
    inside_V = np.zeros(len(logprobs_V), dtype=bool)
    inside_V[order_V[:kept]] = True
    assert 1 < kept < len(logprobs_V)
    ids = [int(g.ids[0]) for g in sampled]
    assert inside_V[ids].all()
    probs_V = np.where(inside_V, np.exp(logprobs_V), 0)
    probs_V /= probs_V.sum()
    counts_V = np.bincount(ids, minlength=len(probs_V))
    deviation_V = np.abs(counts_V - draws * probs_V) / np.sqrt(draws * probs_V * (1 - probs_V) + 1)
    assert deviation_V.max() < 4.5  # standard deviations
    np.testing.assert_allclose([g.logprobs[0] for g in sampled], logprobs_V[ids], atol=TOLERANCE)


async def test_sixteen_interleaved_requests_each_get_their_own_answer(engine: Any, model: Any) -> None:
    async def late(seed: int) -> Generation:
        await asyncio.sleep(0.002 * seed)
        return await engine(prompt(seed, 10 + 3 * seed), Sampling(12 + seed, seed=seed, stop=()))

    for seed, generation in enumerate(await asyncio.gather(*map(late, range(16)))):
        expected = reference_logprobs(model, prompt(seed, 10 + 3 * seed), generation.ids)
        np.testing.assert_allclose(generation.logprobs, expected, atol=TOLERANCE)


async def test_order_and_company_do_not_change_a_requests_tokens(engine: Any) -> None:
    together = await many(engine, list(range(12)), max_tokens=20, stop=())
    backwards = (await many(engine, list(range(12))[::-1], max_tokens=20, stop=()))[::-1]
    alone = [(await many(engine, [seed], max_tokens=20, stop=()))[0] for seed in range(12)]
    for x, y, z in zip(together, backwards, alone, strict=True):
        assert x.ids.tolist() == y.ids.tolist() == z.ids.tolist()


@pytest.mark.parametrize("other", [{"temperature": 0.0}, {"top_p": 0.9}], ids=["greedy", "a nucleus"])
async def test_a_row_that_is_sampled_otherwise_does_not_change_a_requests_tokens(
    engine: Any, other: dict[str, float]
) -> None:
    (alone,) = await many(engine, [3], max_tokens=40, stop=())
    beside, *_ = await asyncio.gather(
        engine(prompt(3), Sampling(40, seed=3, stop=())), engine(prompt(9), Sampling(40, seed=9, stop=(), **other))
    )
    assert beside.ids.tolist() == alone.ids.tolist()


async def test_new_weights_are_served_and_no_old_prefix_is_used(engine: Any, folder: Path) -> None:
    await many(engine, [0, 1], max_tokens=4, stop=())  # leaves prefixes in the cache
    changed = perturbed(folder)
    engine.load_weights(changed.state_dict().items(), 3)
    assert engine.version == 3
    for seed, generation in enumerate(await many(engine, [0, 1], max_tokens=20, stop=())):
        expected = reference_logprobs(changed, prompt(seed), generation.ids)
        np.testing.assert_allclose(generation.logprobs, expected, atol=TOLERANCE)


async def test_weights_change_only_while_nothing_runs(engine: Any, model: Any) -> None:
    running = asyncio.create_task(engine(prompt(0), Sampling(200, stop=())))
    await asyncio.sleep(0.01)
    with pytest.raises(RuntimeError, match="1 requests are running"):
        engine.load_weights(model.state_dict().items(), 1)
    with pytest.raises(RuntimeError, match="1 requests are running"):
        engine.sleep()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    engine.load_weights(model.state_dict().items(), 1)  # the cancelled request is gone
    assert engine.version == 1


async def test_an_engine_that_slept_serves_the_weights_that_it_is_given_then(engine: Any, folder: Path) -> None:
    (before,) = await many(engine, [3], max_tokens=20, stop=())
    engine.sleep()
    engine.wake()
    (after,) = await many(engine, [3], max_tokens=20, stop=())
    assert after.ids.tolist() == before.ids.tolist()
    engine.sleep()
    engine.wake()
    other = perturbed(folder)
    engine.load_weights(other.state_dict().items(), 4)
    (given,) = await many(engine, [3], max_tokens=20, stop=())
    expected = reference_logprobs(other, prompt(3), given.ids)
    np.testing.assert_allclose(given.logprobs, expected, atol=TOLERANCE)


async def test_weights_that_do_not_cover_the_model_are_refused(engine: Any, model: Any) -> None:
    with pytest.raises(ValueError, match=r"missing|leave"):
        engine.load_weights([("model.norm.weight", model.state_dict()["model.norm.weight"])], 5)
    assert engine.version == 0
    engine.load_weights(model.state_dict().items(), 0)


async def test_a_prompt_that_does_not_fit_is_refused_with_both_lengths(engine: Any) -> None:
    with pytest.raises(ValueError, match=f"{MAX_LEN} tokens.*{MAX_LEN}"):
        await engine(prompt(0, MAX_LEN), Sampling(1))
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        await engine(prompt(0), Sampling(0))


def test_vllm_refuses_a_folder_that_is_no_model_before_its_import(tmp_path: Path) -> None:
    from calibadv.cluster.vllm_settings import VllmSettings, check_model_folder

    with pytest.raises(ValueError, match="is not a folder"):
        check_model_folder(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"no config\.json"):
        check_model_folder(str(tmp_path))
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(ValueError, match="BertModel"):
        check_model_folder(str(tmp_path))
    with pytest.raises(ValueError, match="max_model_len must be at least 1, got 0"):
        VllmSettings("x", max_model_len=0)


async def test_a_closed_or_broken_engine_answers_with_an_error_and_never_hangs(folder: Path) -> None:
    from calibadv.rollout.torch_engine import TorchEngine

    engine = TorchEngine.from_folder(folder)
    state = engine._batch.model.state_dict()
    engine._batch.model = None
    with pytest.raises(EngineDied, match="engine is gone"):
        await asyncio.wait_for(engine(prompt(0), Sampling(4)), timeout=120)
    with pytest.raises(EngineDied, match="engine is gone"):
        await engine(prompt(0), Sampling(4))
    engine._batch.model = AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(EngineDied, match="engine is gone"):
        engine.load_weights(state.items(), 1)
    engine.close()

"""Losses by hand, and that the vocabulary is never held for all tokens at once."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from calibadv.losses import Head, TokenStats, chunk_of, low_variance_kl, token_stats


def test_token_stats_by_hand() -> None:
    hidden = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    head = torch.tensor([[0.0, 0.0], [math.log(3), 5.0]])  # logits (0, log 3) and (0, 0)
    stats = token_stats(hidden, head, torch.tensor([1, 0]))
    assert stats.logprobs_N.tolist() == pytest.approx([math.log(3 / 4), math.log(1 / 2)])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert stats.entropy_N.tolist() == pytest.approx([entropy, math.log(2)])


def test_chunking_changes_neither_values_nor_gradients() -> None:
    torch.manual_seed(0)
    hidden, head, targets = torch.randn(23, 8), torch.randn(50, 8), torch.randint(50, (23,))
    weights_N = torch.randn(23)

    def outcome(stats_of: Callable[[Tensor, Tensor], TokenStats]) -> list[Tensor]:
        h, w = hidden.clone().requires_grad_(), head.clone().requires_grad_()
        stats = stats_of(h, w)
        (weights_N * stats.logprobs_N + 0.3 * weights_N.exp() * stats.entropy_N).sum().backward()
        assert h.grad is not None
        assert w.grad is not None
        return [stats.logprobs_N, stats.entropy_N, h.grad, w.grad]

    def plain(h: Tensor, w: Tensor) -> TokenStats:
        distribution = torch.distributions.Categorical(logits=h @ w.T)
        return TokenStats(distribution.log_prob(targets), distribution.entropy())

    for chunk in (4, 1000):
        chunked = outcome(lambda h, w, chunk=chunk: token_stats(h, w, targets, chunk))
        for ours, autograd in zip(chunked, outcome(plain), strict=True):
            torch.testing.assert_close(ours, autograd)


def test_a_cpu_holds_fewer_tokens_of_a_large_vocabulary_at_once() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [chunk_of(cpu, size) for size in (1_200, 151_936, 10**6)] == [1024, 110, 64]
    assert chunk_of(gpu, 151_936) == 1024


def test_a_frozen_head_has_no_gradient_and_changes_none() -> None:
    torch.manual_seed(0)
    head, targets = torch.randn(7, 4), torch.tensor([1, 6, 0])
    gradients = []
    for trains in (True, False):
        hidden = torch.ones(3, 4, requires_grad=True)
        weight = head.clone().requires_grad_(trains)
        token_stats(hidden, weight, targets, 2).logprobs_N.sum().backward()
        gradients.append(hidden.grad)
        assert (weight.grad is not None) == trains
    assert gradients[0] is not None
    assert torch.equal(gradients[0], gradients[1])


def test_no_tokens_give_empty_stats_that_still_backpropagate() -> None:
    hidden = torch.zeros(0, 4, requires_grad=True)
    stats = token_stats(hidden, torch.zeros(7, 4), torch.zeros(0, dtype=torch.long))
    stats.logprobs_N.sum().backward()
    assert stats.logprobs_N.shape == (0,)


class Products(TorchDispatchMode):
    """Dtypes of all matrix products' operands, and how often a tensor of `shape` was cast to bf16."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.operands: list[torch.dtype] = []
        self.shape, self.casts = shape, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::mm", "aten::addmm"):
            self.operands += [matrix.dtype for matrix in args[-2:]]
        if func._schema.name == "aten::_to_copy" and args[0].shape == self.shape:
            self.casts += kwargs["dtype"] == torch.bfloat16
        return func(*args, **(kwargs or {}))


def head_problem() -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [9, 16], which are fp32 under autocast too, a head's weight [33, 16] and targets."""
    torch.manual_seed(0)
    return torch.randn(9, 16, requires_grad=True), torch.randn(33, 16, requires_grad=True), torch.randint(33, (9,))


def test_under_autocast_no_product_is_fp32_and_the_head_is_cast_once_a_pass() -> None:
    hidden, weight, targets = head_problem()
    with Products(weight.shape) as forward, torch.autocast("cpu", torch.bfloat16):
        stats = token_stats(hidden, Head(weight, cap=8.0), targets, 4)
    with Products(weight.shape) as backward:  # outside of autocast, as a learner calls it
        (stats.logprobs_N + 0.3 * stats.entropy_N).sum().backward()
    for seen, products in ((forward, 3), (backward, 9)):
        assert seen.operands == 2 * products * [torch.bfloat16]
        assert seen.casts == 1


def test_gradients_under_autocast_are_fp32_and_near_the_exact_ones() -> None:
    hidden, weight, targets = head_problem()
    with torch.autocast("cpu", torch.bfloat16):
        stats = token_stats(hidden, weight, targets, 4)
    (stats.logprobs_N + 0.3 * stats.entropy_N).sum().backward()
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    distribution = torch.distributions.Categorical(logits=exact[0] @ exact[1].T)
    (distribution.log_prob(targets) + 0.3 * distribution.entropy()).sum().backward()
    for ours, theirs in zip((hidden, weight), exact, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert ours.grad.dtype == torch.float32
        assert float((ours.grad - theirs.grad).norm() / theirs.grad.norm()) < 0.01


def test_a_bf16_heads_gradient_is_summed_over_chunks_in_fp32() -> None:
    torch.manual_seed(0)
    hidden, targets = torch.randn(1024, 16).bfloat16(), torch.randint(40, (1024,))
    given = (torch.randn(40, 16).bfloat16(), torch.randn(40).bfloat16())

    def gradients(chunk: int, dtype: torch.dtype) -> list[Tensor]:
        weight, bias = (tensor.detach().to(dtype).requires_grad_() for tensor in given)
        token_stats(hidden.to(dtype), Head(weight, bias), targets, chunk).logprobs_N.sum().backward()
        assert weight.grad is not None
        assert bias.grad is not None
        assert weight.grad.dtype == bias.grad.dtype == dtype
        return [weight.grad, bias.grad]

    for ours, exact in zip(gradients(8, torch.bfloat16), gradients(1024, torch.float32), strict=True):
        assert float((ours - exact).norm() / exact.norm()) < 0.005  # bf16's eps is 0.0078; summed in it 0.05


def test_beside_a_sum_of_another_dtype_there_is_only_a_part_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibadv.losses.SUM_ROWS", 10)
    hidden, weight, targets = head_problem()
    with torch.autocast("cpu", torch.bfloat16):
        stats = token_stats(hidden, weight, targets, 3)
    with Made((33, 16)) as backward:
        stats.logprobs_N.sum().backward()
    assert backward.count == 2  # the head cast to bf16, and the sum
    plain = [tensor.detach().clone().requires_grad_() for tensor in (hidden, weight)]
    token_stats(*plain, targets).logprobs_N.sum().backward()
    assert weight.grad is not None
    assert plain[1].grad is not None
    assert float((weight.grad - plain[1].grad).norm() / plain[1].grad.norm()) < 0.01


def test_where_a_device_can_bf16_operands_have_fp32_logits_and_gradients() -> None:
    hidden, weight, targets = (tensor.detach().to("meta") for tensor in head_problem())  # as on CUDA, without numbers
    hidden, weight = hidden.bfloat16().requires_grad_(), weight.requires_grad_()
    assert Head(weight.bfloat16()).logits(hidden).dtype == torch.float32
    stats = token_stats(hidden, weight, targets, 4)
    assert (stats.logprobs_N.dtype, stats.entropy_N.dtype) == (torch.float32, torch.float32)
    stats.logprobs_N.sum().backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    assert (hidden.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)


class Made(TorchDispatchMode):
    """How many tensors of `shape` are made, views and what is written over left out."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        in_place = func._schema.name.endswith(("_", "detach"))
        self.count += isinstance(made, Tensor) and tuple(made.shape) == self.shape and not in_place
        return made


def test_a_chunk_holds_its_logits_and_one_tensor_more_at_most() -> None:
    hidden, weight, targets = head_problem()
    with Made((3, 33)) as forward:
        stats = token_stats(hidden, weight, targets, 3)
    with Made((3, 33)) as backward:
        stats.logprobs_N.sum().backward()
    assert (forward.count, backward.count) == (3 * 2, 3 * 1)


def test_log_probs_alone_have_the_gradient_of_autograd_also_under_a_soft_cap() -> None:
    hidden, weight, targets = head_problem()
    token_stats(hidden, Head(weight, scale=1.5, cap=8.0), targets, 4).logprobs_N.sum().backward()
    plain = [tensor.detach().clone().requires_grad_() for tensor in (hidden, weight)]
    logits = 8.0 * torch.tanh(1.5 * (plain[0] @ plain[1].T) / 8.0)
    logits.log_softmax(-1).gather(-1, targets[:, None]).sum().backward()
    for ours, theirs in zip((hidden, weight), plain, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("cap", [None, 8.0])
def test_a_head_at_a_temperature_divides_the_model_s_own_logits(cap: float | None) -> None:
    hidden, weight, targets = head_problem()
    token_stats(hidden, Head(weight, scale=1.5, cap=cap).at(0.5), targets, 4).logprobs_N.sum().backward()
    plain = [tensor.detach().clone().requires_grad_() for tensor in (hidden, weight)]
    logits = 1.5 * (plain[0] @ plain[1].T)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    (logits / 0.5).log_softmax(-1).gather(-1, targets[:, None]).sum().backward()
    for ours, theirs in zip((hidden, weight), plain, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


PEAK = """
import torch
from calibadv.losses import token_stats
from tests.build import peak_bytes
torch.set_num_threads(1)
tokens, vocabulary, width = {tokens}, 30_000, 8
hidden = torch.randn(tokens, width, requires_grad=True)
head = torch.randn(vocabulary, width, requires_grad=True)
token_stats(hidden[:256], head, torch.zeros(256, dtype=torch.long), 64).logprobs_N.sum().backward()
before = peak_bytes()
token_stats(hidden, head, torch.zeros(tokens, dtype=torch.long), 64).logprobs_N.sum().backward()
print(peak_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process's peak in /proc")
def test_peak_memory_does_not_grow_with_tokens_times_vocabulary() -> None:
    tokens, vocabulary = 4096, 30_000
    command, root = [sys.executable, "-c", PEAK.format(tokens=tokens)], Path(__file__).parents[1]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    one_fp32_matrix = tokens * vocabulary * 4
    assert 0 < int(run.stdout) < one_fp32_matrix / 4


def test_low_variance_kl_is_zero_at_equality_and_positive_elsewhere() -> None:
    assert float(low_variance_kl(torch.tensor([-1.0]), torch.tensor([-1.0]))) == 0
    d = math.log(2)
    assert float(low_variance_kl(torch.tensor([-1.0]), torch.tensor([-1.0 + d]))) == pytest.approx(2 - d - 1)

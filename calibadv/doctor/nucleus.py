"""A truncated sampler (top_p < 1) beside log-probs of the whole distribution: what trains is not what samples."""

from __future__ import annotations

from collections.abc import Iterator

from calibadv.doctor.finding import Finding, warned
from calibadv.doctor.subject import Subject


def nucleus(subject: Subject) -> Iterator[Finding]:
    """A warning where training rollouts are of a nucleus; nothing where they are of the whole distribution.

    Both kinds of `learner.old_logprobs` are of the whole one: neither takes the mismatch away.
    """
    if (top_p := subject.config.rollout.top_p) < 1:
        yield warned(
            "top_p",
            f"rollouts are sampled with top_p {top_p:g}, log-probs are of the whole distribution: with much more "
            "negative than positive advantage such training turned to garbled text, and with top_p 1 it did not "
            "(docs/lab.md)",
            "set rollout.top_p 1; or keep it, and watch advantage/neg_pos_ratio and policy/entropy",
        )

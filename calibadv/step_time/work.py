"""What a step has to do, and what is assumed of how well it is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """A step's questions and the shape of its mean rollout, and of its longest. Tokens are the model's own.

    The counts of questions and samples are the paper's (CalibAdv appendix G, and its released script); it does not
    publish the rest. A prompt is Search-R1's of 190 tokens with a question; a search returns three passages of 100
    words, 450 tokens with titles and tags; two searches and an answer, 100 tokens each, are what questions of two hops
    take.
    """

    questions: int = 512
    samples: int = 5
    prompt_tokens: float = 200
    turns: float = 3  # that the policy writes; every one but the last is followed by a search
    action_tokens: float = 100  # a turn
    observation_tokens: float = 450  # a search
    longest_turns: float = 5
    longest_action_tokens: float = 2048  # in all its turns

    def __post_init__(self) -> None:
        if self.questions < 1 or self.samples < 1 or self.turns < 1 or self.longest_turns < self.turns:
            raise ValueError(
                f"questions {self.questions}, samples {self.samples}, turns {self.turns}, longest_turns "
                f"{self.longest_turns}: expected each to be at least 1, and the longest not below the mean"
            )

    @property
    def rollouts(self) -> int:
        return self.questions * self.samples

    @property
    def searches(self) -> float:
        return self.rollouts * (self.turns - 1)

    @property
    def actions(self) -> float:
        """Sampled tokens of the mean rollout."""
        return self.turns * self.action_tokens

    @property
    def rollout_tokens(self) -> float:
        """Tokens of the mean rollout: prompt, actions and observations."""
        return self.prompt_tokens + self.actions + (self.turns - 1) * self.observation_tokens

    @property
    def tokens(self) -> float:
        """Tokens that the learners see in a step."""
        return self.rollouts * self.rollout_tokens

    @property
    def context(self) -> float:
        """Tokens before a sampled one, in the mean: half of the rollout's turns, and half of its own."""
        before = (self.turns - 1) / 2 * (self.action_tokens + self.observation_tokens)
        return self.prompt_tokens + before + self.action_tokens / 2


@dataclass(frozen=True, slots=True)
class Assumptions:
    """How much of each peak is reached, and what is no matter of GPUs. Guesses in round numbers, measured nowhere."""

    learner_mfu: float = 0.4  # of the peak in a learner's passes, padding and idle gaps included
    engine_mfu: float = 0.5  # of the peak where an engine is bound by arithmetic
    bandwidth: float = 0.6  # of the memory's peak
    links: float = 0.7  # of NVLink's, the network's and PCIe's peak
    engine_step_s: float = 0.003  # of scheduling and launching, in each decoding step
    search_s: float = 0.5  # latency of a search under load
    searches_per_s: float = 200.0  # that one retriever answers
    store_gb_s: float = 4.0  # copies into and out of Ray's object store, by one process
    transfer_gb_s: float = 2.0  # an object between two nodes


ASSUMED = Assumptions()

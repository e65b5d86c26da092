"""How the policy learns from rollouts."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from calibadv.nearest import did_you_mean
from calibadv.refusals import short_repr
from calibadv.section import Beta, Coefficient, Decides, Local, Means, Positive, Rollouts, Section, Share, Tokens
from calibadv.user_code import names_code

SURROGATES: dict[str, tuple[str, ...]] = {  # by name: which of clip_high and dual_clip it reads
    "ppo": ("clip_high", "dual_clip"),
    "gspo": ("clip_high", "dual_clip"),
    "gspo_turn": ("clip_high", "dual_clip"),
    "cispo": ("clip_high",),
    "sapo": (),
}


class LearnerConfig(Section):
    """How the policy is updated."""

    decides: ClassVar[Decides] = Decides.RESULT

    learners: Means[int] = Field(0, ge=0, le=10_000)
    """Learner processes; 0 = the driver learns."""
    gpus_per_learner: Means[float] = Field(0, ge=0, le=1024)
    """GPUs that each learner process asks of Ray."""
    zero: Literal[0, 1, 2, 3] = 0
    """What learners share out (DeepSpeed): 1 moments, 2 and gradients, 3 and weights; 0 = nothing."""
    threads: Means[int] = Field(1, ge=1, le=1024)
    """CPU threads of each learner."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass; bfloat16 = autocast over float32 master weights."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that a learner computes with. bfloat16, where learners share a state (zero 2 or 3): AdamW steps a
    float32 copy of them, which is shared out (docs/zero.md)."""
    fused: bool = False
    """Norms, rotary embedding and MLPs by liger-kernel's fused kernels (docs/gpu.md); on GPUs alone."""
    lr: float = Field(5e-7, gt=0, le=1)
    """The policy's learning rate at its peak; 5e-7 in the paper (appendix G)."""
    lr_final: Share = 0.0
    """Where the cosine ends at run.steps. The released script's cosine is laid out over 410 steps."""
    warmup_steps: int = Field(0, ge=0, le=10**7)
    """Training steps over which the policy's rate rises, before the cosine."""
    critic_warmup_steps: int = Field(0, ge=0, le=10**7)
    """Training steps over which the critic's rate rises; it is constant then."""
    critic_only_steps: int = Field(0, ge=0, le=10**7)
    """First training steps, in which the policy stays as it is."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Of AdamW."""
    weight_decay: Coefficient = 0.01
    """Of AdamW."""
    grad_clip: float = Field(1.0, gt=0, le=10**9)
    """Largest norm of an update's gradient."""
    minibatch_rollouts: Rollouts = 256
    """Rollouts of one update, over all learners; 256 in the paper's released script."""
    minibatch_draw: Literal["rollouts", "groups"] = "rollouts"
    """What is drawn into mini-batches: rollouts one by one, or a question's rollouts together, whose common beginnings
    an update then computes once."""
    passes: int = Field(1, ge=1, le=1000)
    """Over a step's rollouts, each with mini-batches of its own draw."""
    token_budget: Means[Tokens] = 16384
    """Tokens of a micro-batch, padding included; how many micro-batches there are follows from it."""
    pack_rows: Means[bool] = True
    """Whether rollouts stand in a micro-batch one after the other, without padding and with common beginnings computed
    once, where the model's attention allows it."""
    surrogate: Local[str] = "ppo"
    """What an update climbs: ppo, gspo (one ratio a rollout), gspo_turn (one a turn), cispo, sapo, or a function of
    your own as file.py:name or package.module:name (docs/method.md)."""
    clip: float = Field(0.2, gt=0, le=10**6)
    """Of the probability ratio: 1 - clip to 1 + clip. GSPO's paper has 3e-4, and 4e-4 above."""
    clip_high: float | None = Field(None, gt=0, le=10**6)
    """The bound above, 1 + clip_high (DAPO: 0.28); none = clip."""
    dual_clip: float | None = Field(None, gt=1, le=10**6)
    """A negative advantage counts at most this many times over, however likely its token has become; none = off."""
    sapo_tau: tuple[Positive, Positive] = (1.0, 1.05)
    """Of surrogate "sapo": temperatures where the advantage is positive, and where not."""
    divisor: Literal["tokens", "sequences", "constant"] = "tokens"
    """What the surrogate's sum is divided by: tokens, so that each counts alike; rollouts, each the mean of its tokens;
    or rollouts times divisor_tokens (Dr. GRPO)."""
    divisor_tokens: Tokens | None = None
    """Of divisor "constant": tokens a rollout, e.g. about those of a long one."""
    kl_coef: Coefficient = 0.0
    """Weight of the low-variance KL against the policy as it was at the start."""
    entropy_coef: Coefficient = 0.0
    """Weight of the entropy bonus."""
    old_logprobs: Literal["sampler", "recompute"] = "sampler"
    """The ratio's denominator: the engine's log-probs, or the learner's own before its first update."""
    importance_cap: float | None = Field(None, gt=0, le=10**6)
    """Truncated importance sampling between engine and learner; needs old_logprobs "recompute". none = off."""
    token_mask: tuple[Positive, Positive] | None = None
    """Tokens whose probability by the learner, over the engine's, is outside do not train, e.g. [0.5, 2]; needs
    "recompute"."""
    rollout_mask: tuple[Positive, Positive] | None = None
    """Rollouts whose geometric mean of that ratio is outside do not train, e.g. [0.99, 1.01]; needs "recompute"."""
    gradient_checkpointing: Means[bool] = False
    """Whether activations are computed again in the backward pass, which saves memory."""
    lora_rank: int = Field(0, ge=0, le=10**5)
    """Of adapters beside frozen weights (Hu et al. 2022), without dropout, for the engine has none; 0 = all weights
    train."""
    lora_alpha: float = Field(16.0, gt=0, le=10**6)
    """An adapter adds alpha / rank times B A to its weight."""
    lora_targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Linear layers with an adapter: all of the decoder's blocks, or a list of names."""

    @field_validator("lora_targets", mode="before")
    @classmethod
    def _all_or_named(cls, targets: Any) -> Any:
        named = isinstance(targets, list | tuple) and targets and all(isinstance(t, str) and t for t in targets)
        if targets == "all-linear" or named:
            return targets
        raise ValueError(
            f"learner.lora_targets = {short_repr(targets)}: expected 'all-linear' or a list of names of linear layers, "
            "e.g. ['q_proj', 'v_proj']"
        )

    @model_validator(mode="after")
    def _somebody_keeps_fp32(self) -> LearnerConfig:
        """Weights in bf16 need the fp32 copy that stages 2 and 3 share out."""
        if self.weights == "bfloat16" and (self.zero < 2 or self.dtype != "bfloat16" or self.lora_rank):
            raise ValueError(
                f"learner.weights = 'bfloat16' with learner.zero = {self.zero}, learner.dtype = {self.dtype!r} and "
                f"learner.lora_rank = {self.lora_rank}: it needs zero 2 or 3, dtype 'bfloat16' and no adapters"
            )
        return self

    @model_validator(mode="after")
    def _surrogate_knows_its_numbers(self) -> LearnerConfig:
        """A number that the surrogate does not read is a mistake."""
        own = names_code(self.surrogate)
        if not own and self.surrogate not in SURROGATES:
            raise ValueError(
                f"learner.surrogate = {self.surrogate!r} is not known{did_you_mean(self.surrogate, SURROGATES)}; "
                f"expected one of {', '.join(SURROGATES)}, or a function as file.py:name or package.module:name"
            )
        read = () if own else SURROGATES[self.surrogate]
        for name in ("clip_high", "dual_clip"):
            if getattr(self, name) is not None and name not in read:
                having = ", ".join(each for each, names in SURROGATES.items() if name in names)
                raise ValueError(
                    f"learner.{name} = {getattr(self, name):g} is read by {having}, not by learner.surrogate = "
                    f"{self.surrogate!r}: leave it at none"
                )
        return self

    @model_validator(mode="after")
    def _constant_is_given(self) -> LearnerConfig:
        if (self.divisor == "constant") != (self.divisor_tokens is not None):
            raise ValueError(
                f"learner.divisor = {self.divisor!r} with learner.divisor_tokens = {self.divisor_tokens or 'none'}: "
                "the constant is given by divisor_tokens, and read by divisor 'constant' alone"
            )
        return self

    @model_validator(mode="after")
    def _correction_needs_recompute(self) -> LearnerConfig:
        for name in ("importance_cap", "token_mask", "rollout_mask"):
            if getattr(self, name) is not None and self.old_logprobs != "recompute":
                raise ValueError(f"learner.{name} corrects recomputed log-probs: set learner.old_logprobs 'recompute'")
        for name in ("token_mask", "rollout_mask"):
            bounds = getattr(self, name)
            if bounds is not None and not bounds[0] <= 1 <= bounds[1]:
                raise ValueError(f"learner.{name} = {list(bounds)}: expected bounds around 1, e.g. [0.5, 2]")
        return self

    @model_validator(mode="after")
    def _several_share(self) -> LearnerConfig:
        if self.zero and self.learners < 2:
            raise ValueError(
                f"learner.zero = {self.zero} shares a state between learners, and learner.learners = {self.learners} "
                "is no more than one: set learner.learners to 2 or more, or learner.zero to 0"
            )
        return self

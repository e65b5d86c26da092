"""AlgorithmConfig of a calibadv run: RLlib's switches, set once, around our own configuration tree."""

from __future__ import annotations

from typing import Any

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.util.placement_group import PlacementGroup, placement_group

from calibadv.cluster.shipped import Shipped
from calibadv.config import Config, role
from calibadv.methods import Method
from calibadv.rllib.connectors import AddAdvantages, CriticAdvantages, FirstPass, PackMinibatches
from calibadv.rllib.env_runner import NO_SPACE, RolloutEnvRunner
from calibadv.rllib.learner import PolicyLearner
from calibadv.rllib.learner_group import PolicyLearnerGroup
from calibadv.rllib.module import CausalLMModule
from calibadv.rllib.stream import RolloutStream


def learners_together(config: Config) -> PlacementGroup | None:
    """Room for several learners on as few nodes as have it: by itself Ray spreads them over half-full ones, and between
    nodes gradients travel far slower. None for one learner; where each shares its GPU with an engine, for room of two
    halves could be on one GPU; and in a Tune trial, which has the room. RLlib's group gives it back when it shuts down.
    """
    learner = config.learner
    alone = learner.learners < 2 or config.rollout.colocated
    if alone or ray.util.get_current_placement_group() is not None:
        return None
    own = {"GPU": learner.gpus_per_learner} if learner.gpus_per_learner else {"CPU": 1.0}  # as RLlib asks for each
    return placement_group([own | role(config.cluster.learners_on)] * learner.learners, strategy="PACK")


class CalibAdvConfig(AlgorithmConfig):  # type: ignore[misc]
    """Everything `CalibAdvAlgorithm` needs: what its learners train, and the rollout stream."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.calibadv = Config()
        self.method: Shipped[Method] | None = None
        self.model_folder = ""
        self.coordinator: str | None = None  # its name; None: a learner by itself
        self.stream: RolloutStream | None = None
        self.framework("torch")
        self.environment(observation_space=NO_SPACE, action_space=NO_SPACE)
        self.env_runners(env_runner_cls=RolloutEnvRunner, num_env_runners=0, create_local_env_runner=True)
        self.rl_module(model_config={})
        self.reporting(min_time_s_per_iteration=None)
        self._dont_auto_sync_env_runner_states = True  # engines pull published weights

    def of_learners(
        self, config: Config, method: Method, model_folder: str, coordinator: str | None = None
    ) -> CalibAdvConfig:
        """This config, set up for learners that train the model in `model_folder` by `method`."""
        learner = config.learner
        self.calibadv, self.model_folder, self.coordinator = config, model_folder, coordinator
        self.method = Shipped(method)
        self.debugging(seed=config.run.seed, log_level="ERROR")
        self.learners(
            num_learners=learner.learners,
            num_gpus_per_learner=learner.gpus_per_learner,
            custom_resources_per_learner=role(config.cluster.learners_on),
            learner_class=PolicyLearner,
            add_default_connectors_to_learner_pipeline=False,
            learner_connector=self._learner_connectors,
        )
        self.training(lr=learner.lr)
        return self

    def of_run(self, stream: RolloutStream) -> CalibAdvConfig:
        """This config, set up for the run that `stream` describes."""
        self.stream = stream
        return self.of_learners(stream.config, stream.method, str(stream.model), stream.coordinator)

    def _learner_connectors(self, *_: Any) -> list[Any]:
        assert self.method is not None, "of_learners comes first"
        learner, method = self.calibadv.learner, self.method.value
        connectors: list[Any] = [AddAdvantages(method)]
        wanted = {"logprobs_N"} if learner.old_logprobs == "recompute" else set()
        if (critic := method.critic) is not None:
            wanted |= {"values_N", "reference_logprobs_N"} if critic.kl_reward else {"values_N"}
        if wanted:
            connectors.append(FirstPass(wanted, learner.token_budget))
        if critic is not None:
            connectors.append(CriticAdvantages(critic))
        return [*connectors, PackMinibatches(learner.token_budget)]

    def build_learner_group(self, **kwargs: Any) -> PolicyLearnerGroup:
        """Our LearnerGroup in place of RLlib's."""
        spec = kwargs.get("rl_module_spec") or self.rl_module_spec
        if not isinstance(spec, MultiRLModuleSpec):
            spec = MultiRLModuleSpec(rl_module_specs={DEFAULT_MODULE_ID: spec})
        config = self.copy(copy_frozen=False)
        config.stream = None  # a run's questions would travel to every learner
        placement = kwargs.get("placement_group") or learners_together(self.calibadv)
        return PolicyLearnerGroup(config=config, module_spec=spec, placement_group=placement)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """The causal language model of the run."""
        assert self.method is not None, "of_learners comes first"
        learner, method = self.calibadv.learner, self.method.value
        return RLModuleSpec(
            module_class=CausalLMModule,
            observation_space=NO_SPACE,
            action_space=NO_SPACE,
            model_config={
                "path": self.model_folder,
                "dtype": learner.dtype,
                "temperature": self.calibadv.rollout.temperature,
                "gradient_checkpointing": learner.gradient_checkpointing,
                "pack_rows": learner.pack_rows,
                "keep_reference": method.needs_reference(learner.kl_coef),
                "critic": method.critic_kind,
            },
        )

    def get_default_learner_class(self) -> type[PolicyLearner]:
        return PolicyLearner

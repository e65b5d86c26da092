"""The whole configuration of a run: one pydantic tree, read from TOML, overridden by `--section.key value`."""

from calibadv.config.cluster import ClusterConfig, role
from calibadv.config.learner import LearnerConfig
from calibadv.config.load import NOTHING, ConfigError, load_config, read_toml, to_toml
from calibadv.config.sections import CheckpointConfig, SentinelConfig
from calibadv.config.tree import Config, decides
from calibadv.pocket import POCKET

__all__ = [
    "NOTHING",
    "POCKET",
    "CheckpointConfig",
    "ClusterConfig",
    "Config",
    "ConfigError",
    "LearnerConfig",
    "SentinelConfig",
    "decides",
    "load_config",
    "read_toml",
    "role",
    "to_toml",
]

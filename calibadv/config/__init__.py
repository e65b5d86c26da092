"""The whole configuration of a run: one pydantic tree, read from TOML, overridden by `--section.key value`."""

from calibadv.config.sections import POCKET, Config, ConfigError, load_config, role

__all__ = ["POCKET", "Config", "ConfigError", "load_config", "role"]

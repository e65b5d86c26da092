"""The judge's server, for methods that ask one."""

from tests.rewards.conftest import server

__all__ = ["server"]

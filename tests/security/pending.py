"""Marks what waits for a change of a file that another hand is working on; the mark goes with that change."""

from __future__ import annotations

import pytest

pending = pytest.mark.xfail(strict=True, reason="waits for the hardening patch of the file that it tries")

"""Fixtures of the graph tests."""

from nodes import client, domain, start  # noqa: F401

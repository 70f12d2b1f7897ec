"""Fixtures of the graph tests."""

from helpers.nodes import client, domain, start  # noqa: F401

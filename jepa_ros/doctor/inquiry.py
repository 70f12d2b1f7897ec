"""Requests to services of other nodes, sent once these are discovered and repeated until they are answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

REPEAT_AFTER = 1.0
"""s without an answer until a request is sent again: a server that has not discovered this client cannot answer."""


@dataclass
class _Request:
    client: Client
    message: Any
    read: Callable[[Any], None]
    sent_at: float | None = None
    futures: list[Future] = field(default_factory=list)
    is_answered: bool = False


class Inquiry:
    """Requests by key, each of which is asked once. Call `update` while the node is spun."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._clients: dict[str, Client] = {}
        self._requests: dict[Hashable, _Request] = {}

    def ask(self, key: Hashable, kind: type, service: str, message: Any, read: Callable[[Any], None]) -> None:
        """Add a request, unless there is one of this key. kind: the service's type; read: gets the answer."""
        if key in self._requests:
            return
        if service not in self._clients:
            self._clients[service] = self._node.create_client(kind, service)
        self._requests[key] = _Request(self._clients[service], message, read)

    def update(self) -> None:
        """Send what can be sent, and send again what was not answered."""
        now = time.monotonic()
        for request in self._requests.values():
            if request.is_answered or (request.sent_at is not None and now < request.sent_at + REPEAT_AFTER):
                continue
            if request.client.service_is_ready():
                request.sent_at = now
                future = request.client.call_async(request.message)
                request.futures.append(future)
                future.add_done_callback(lambda done, request=request: self._finish(request, done))

    @staticmethod
    def _finish(request: _Request, done: Future) -> None:
        if not done.cancelled() and done.exception() is None and not request.is_answered:
            request.is_answered = True
            request.read(done.result())

    def is_answered(self) -> bool:
        """Return whether every request has been answered."""
        return all(request.is_answered for request in self._requests.values())

    def unanswered(self) -> list[Hashable]:
        """Return the keys of requests without an answer."""
        return [key for key, request in self._requests.items() if not request.is_answered]

    def close(self) -> None:
        """Remove the clients from the node."""
        for request in self._requests.values():
            for future in request.futures:
                future.cancel()
        for client in self._clients.values():
            self._node.destroy_client(client)

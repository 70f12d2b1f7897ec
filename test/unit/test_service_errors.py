"""A service callback that raises does not end the node: the error is reported and the defaults are sent."""

import asyncio
from types import SimpleNamespace

import pytest

from jepa_ros.nodes.common.lifecycle import contain_errors


class Response(SimpleNamespace):
    """A service response: no success by default."""

    def __init__(self) -> None:
        super().__init__(success=False)


def fails(request, response):
    response.success = True
    raise KeyError(request)


async def fails_later(request, response):
    return fails(request, response)


def answers(request, response):
    response.success = request == "good"
    return response


async def answers_later(request, response):
    return answers(request, response)


def result(value):
    return asyncio.run(value) if asyncio.iscoroutine(value) else value


@pytest.mark.parametrize("callback", [fails, fails_later])
def test_a_service_callback_that_raises_is_logged_and_answered_with_failure(callback):
    reported = []
    guarded = contain_errors(callback, lambda key, text: reported.append(text))
    assert result(guarded("bad", Response())).success is False
    assert len(reported) == 1 and "KeyError: 'bad'" in reported[0]


@pytest.mark.parametrize("callback", [answers, answers_later])
def test_a_service_callback_that_succeeds_is_unchanged(callback):
    guarded = contain_errors(callback, pytest.fail)
    assert result(guarded("good", Response())).success is True
    assert asyncio.iscoroutinefunction(guarded) == asyncio.iscoroutinefunction(callback)

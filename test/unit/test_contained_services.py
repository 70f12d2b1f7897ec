"""A service's callback that raises ends no node: it is reported and the response's defaults are sent."""

import asyncio
from types import SimpleNamespace

import pytest

from jepa_ros.nodes.common.services import contained


class Response(SimpleNamespace):
    """As a service's: no success unless somebody says so."""

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
def test_what_raises_is_reported_and_answered_with_no_success(callback):
    said = []
    guarded = contained(callback, lambda key, text: said.append(text))
    assert result(guarded("bad", Response())).success is False
    assert len(said) == 1 and "KeyError: 'bad'" in said[0]


@pytest.mark.parametrize("callback", [answers, answers_later])
def test_what_answers_is_left_as_it_is(callback):
    guarded = contained(callback, pytest.fail)
    assert result(guarded("good", Response())).success is True
    assert asyncio.iscoroutinefunction(guarded) == asyncio.iscoroutinefunction(callback)

"""What rclpy's services lack: a callback that raises does not end the process, and parameters are set together.

rclpy lets an exception out of spin, so that one request, such as a parameter of an unknown type, would end a node.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from functools import partial, wraps

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.parameter import Parameter


def guard_services(node) -> None:
    """To be called once rclpy has made its own services: see the module's text."""
    own = {"set_parameters": partial(_set_together, node), "set_parameters_atomically": partial(_set_in_one, node)}
    for service in node.services:
        callback = own.get(service.srv_name.rpartition("/")[2], service.callback)
        service.callback = contained(callback, node.error_throttled)


def _set_together(node, request, response):
    """A request is applied whole or not at all; rclpy alone would set one value after the other."""
    response.results = [_set(node, request.parameters)] * len(request.parameters)
    return response


def _set_in_one(node, request, response):
    response.result = _set(node, request.parameters)
    return response


def _set(node, messages) -> SetParametersResult:
    if unknown := next((m.name for m in messages if not node.has_parameter(m.name)), None):
        reason = f"parameter '{unknown}': expected one of this node's, found none of that name"
        return SetParametersResult(successful=False, reason=reason)
    try:
        return node.set_parameters_atomically([Parameter.from_parameter_msg(message) for message in messages])
    except (ParameterException, ValueError, TypeError) as error:  # no such type, or no value of it
        return SetParametersResult(successful=False, reason=str(error))


def contained(callback: Callable, report: Callable[[str, str], None]) -> Callable:
    """The callback of a service; where it raises, that is logged and the response's defaults (no success) are sent.

    report: logs an error under a key, throttled, as whoever asks may ask often.
    """

    def failed(response):
        report(f"service {callback}", f"a request failed: {traceback.format_exc()}")
        return type(response)()

    if inspect.iscoroutinefunction(callback):

        @wraps(getattr(callback, "func", callback))
        async def guarded(request, response):
            try:
                return await callback(request, response)
            except Exception:
                return failed(response)

    else:

        @wraps(getattr(callback, "func", callback))
        def guarded(request, response):
            try:
                return callback(request, response)
            except Exception:
                return failed(response)

    return guarded

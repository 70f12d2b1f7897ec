"""The base class of all nodes: lifecycle, parameters, diagnostics, services that survive errors, and an orderly end.

A node class implements configure, activate, deactivate and cleanup (all optional) with the plain functions that do the
work. JepaNode adds to rclpy's LifecycleNode:

- it configures and activates itself (`autostart`), and tries again at 2 Hz while an input is missing;
- an invalid transition request is refused (rclpy lets the exception end the process);
- a service callback that raises does not end the process either, and parameters are set together;
- parameters are a schema (`parameters.py`), diagnostics are collected in one place (`diagnostics.py`);
- SIGINT and SIGTERM stop the motion first and end the process with exit code 0.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from types import SimpleNamespace

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, TransitionCallbackReturn
from rclpy.parameter import Parameter as RclpyParameter

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.diagnostics import ERROR, OK, WARN, DiagnosticsPublisher, Status, Throttle
from jepa_ros.nodes.common.parameters import Parameter, ParameterSet

RETRY_PERIOD = 0.5  # s between attempts to configure while an input is missing
LOG_PERIOD, WAITING_LOG_PERIOD = 5.0, 30.0  # s between two equal warnings or errors; between two lines "waiting: ..."

_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_AUTOSTART = Parameter(
    "autostart",
    True,
    "Configure and activate without a lifecycle manager, as soon as the required inputs are available.",
    read_only=True,
)


class NotReady(Exception):
    """Raised by configure or activate while an input is missing. The text says which, in one sentence."""


class JepaNode(LifecycleNode):
    """Lifecycle node with a parameter schema, diagnostics and autostart.

    Hooks for subclasses, all called from the executor's thread:
    configure, activate: raise InputError to refuse with one line, NotReady to be called again. ROS entities created in
    either are destroyed by cleanup (and when configure raises), so create those that must outlive it in the
    constructor, such as a subscription that configure waits for.
    deactivate, cleanup: undo them. shutdown_motion: bring moving parts to rest; called before deactivate when the
    process or the lifecycle ends while active; it must return within a few seconds, and may publish.
    validate(values): raise InputError where parameters contradict each other; it may use nothing but its argument.
    parameters_changed(names): a change was accepted. diagnose(): return a list of Status.
    refused(): autostart has ended because configure or activate refused; a lifecycle manager can still request them.

    Parameter values are attributes of `self.p`.
    """

    def __init__(self, name: str, parameters: Sequence[Parameter] = (), **kwargs) -> None:
        super().__init__(name, **kwargs)
        self._throttle = Throttle()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._created_before: set | None = None
        self._problem = ""  # why the last transition failed, in one sentence
        self._waiting = False
        self._motion_ended = False
        self._retry_timer = None
        self.exit_code: int | None = None
        self._parameter_set = ParameterSet(self, (_AUTOSTART, *parameters))
        for hint in self._parameter_set.misspelt(getattr(self, "_parameter_overrides", {})):
            self.get_logger().warning(hint)
        self._refuse_invalid_transitions()
        self._guard_services()
        self._diagnostics = DiagnosticsPublisher(self, self._collect_diagnostics)
        self.create_timer(1.0, self._diagnostics.tick, clock=self._steady)
        self._autostart_pending = self.p.autostart
        self._autostart_guard = self.create_guard_condition(self._autostart)
        self._autostart_guard.trigger()

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def configure(self) -> None: ...

    def activate(self) -> None: ...

    def deactivate(self) -> None: ...

    def cleanup(self) -> None: ...

    def shutdown_motion(self) -> None: ...

    def validate(self, values: SimpleNamespace) -> None: ...

    def parameters_changed(self, names: set[str]) -> None: ...

    def refused(self) -> None: ...

    def diagnose(self) -> list[Status]:
        return []

    # -- for subclasses ------------------------------------------------------------------------------------------------

    @property
    def p(self) -> SimpleNamespace:
        """The present parameter values. Keep the object to read several values of one consistent set."""
        return self._parameter_set.values

    @property
    def state(self) -> str:
        """Lifecycle state: unconfigured, inactive, active, finalized, or a transition's (configuring, ...)."""
        return self._state_machine.current_state[1]

    @property
    def active(self) -> bool:
        return self.state == "active"

    def now(self) -> float:
        """Return ROS time in s (simulated time if use_sim_time is set)."""
        return self.get_clock().now().nanoseconds * 1e-9

    def steady_timer(self, period: float, callback: Callable[[], None]):
        """Create a timer on the steady clock, independent of /clock. period: s."""
        return self.create_timer(period, callback, clock=self._steady)

    def warn_throttled(self, key: str, message: str) -> None:
        """Log a warning at most once per LOG_PERIOD for each key, with the number suppressed in between."""
        self._log_throttled(lambda text: self.get_logger().warning(text), key, message)

    def error_throttled(self, key: str, message: str) -> None:
        """Log an error at most once per LOG_PERIOD for each key, with the number suppressed in between."""
        self._log_throttled(lambda text: self.get_logger().error(text), key, message)

    def diagnostics_changed(self) -> None:
        """Publish diagnostics now if a level or message has changed."""
        self._diagnostics.publish_changes()

    def retry_now(self) -> None:
        """Configure again at once: an input that it may wait for has arrived. May be called from any thread."""
        self._autostart_guard.trigger()

    def request_exit(self, code: int) -> None:
        """End the process in an orderly way, with this exit code."""
        self.exit_code = code
        if self.executor is not None:
            self.executor.create_task(lambda: None)  # so that spin_once returns

    def create_service(self, srv_type, srv_name, callback, **options):
        """Create a service whose callback may raise without ending the node."""
        return super().create_service(srv_type, srv_name, contain_errors(callback, self.error_throttled), **options)

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def on_configure(self, state) -> TransitionCallbackReturn:
        self._created_before = self._entities()
        if not self._attempt(self.configure):
            self._destroy_created()
            return _FAILURE
        return super().on_configure(state)

    def on_activate(self, state) -> TransitionCallbackReturn:
        self._motion_ended = False
        super().on_activate(state)
        if not self._attempt(self.activate):
            super().on_deactivate(state)
            return _FAILURE
        return _SUCCESS

    def on_deactivate(self, state) -> TransitionCallbackReturn:
        self._run_hook(self.deactivate)  # publishers still work in it, so a last stop can be sent
        return super().on_deactivate(state)

    def on_cleanup(self, state) -> TransitionCallbackReturn:
        self._run_hook(self.cleanup)
        self._destroy_created()
        self._problem = ""
        return _SUCCESS

    def on_shutdown(self, state) -> TransitionCallbackReturn:
        if state.label == "active":
            self.end_motion()
            self.on_deactivate(state)
        if state.label in ("active", "inactive"):
            self._run_hook(self.cleanup)
            self._destroy_created()
        return _SUCCESS

    def end_motion(self) -> None:
        """Call shutdown_motion, once after each activation."""
        if not self._motion_ended:
            self._motion_ended = True
            self._run_hook(self.shutdown_motion)

    def finish(self) -> None:
        """Make the last transition, from whatever state the node is in."""
        if self.active:
            self.end_motion()
        if self.state in ("unconfigured", "inactive", "active"):
            self.trigger_shutdown()

    def _attempt(self, hook: Callable[[], None]) -> bool:
        """Run configure or activate; on failure keep the reason, and whether another attempt makes sense."""
        self._problem, self._waiting = "", False
        try:
            hook()
            return True
        except NotReady as reason:
            self._problem, self._waiting = str(reason), True
            text = f"waiting: {reason}"
            self._log_throttled(lambda text: self.get_logger().info(text), text, text, WAITING_LOG_PERIOD)
        except InputError as error:
            self._problem = str(error)
            self.get_logger().error(self._problem)
        except Exception as error:  # a bug: report it, but keep answering
            self._problem = f"{hook.__name__} failed with {type(error).__name__}: {error}"
            self.get_logger().error(traceback.format_exc())
        return False

    def _run_hook(self, hook: Callable[[], None]) -> None:
        """Run a hook; an exception is logged and does not prevent what comes after it."""
        try:
            hook()
        except Exception:
            self.get_logger().error(traceback.format_exc())

    def _autostart(self) -> None:
        if not self._autostart_pending:
            return
        if self.state == "unconfigured":
            self.trigger_configure()
        if self.state == "inactive":
            self.trigger_activate()
        self._autostart_pending = self._waiting
        self._set_retry(self._waiting)
        if self.active:
            self.get_logger().info("active")
        elif not self._waiting:
            self.refused()
        self.diagnostics_changed()

    def _set_retry(self, wanted: bool) -> None:
        if wanted and self._retry_timer is None:
            self._retry_timer = self.steady_timer(RETRY_PERIOD, self._autostart)
        elif not wanted and self._retry_timer is not None:
            self.destroy_timer(self._retry_timer)
            self._retry_timer = None

    def _refuse_invalid_transitions(self) -> None:
        service = self._service_change_state
        inner = service.callback

        def change_state(request, response):
            self._autostart_pending = False  # a lifecycle manager has taken over
            self._set_retry(False)
            before = self.state
            try:
                response = inner(request, response)
            except Exception as error:  # RCLError: no such transition from this state
                response.success = False
                wanted = request.transition.label or request.transition.id
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                self.get_logger().warning(f"lifecycle request '{wanted}' refused: impossible while {before} ({reason})")
            self.diagnostics_changed()
            return response

        service.callback = change_state

    # -- services and parameters ---------------------------------------------------------------------------------------

    def _guard_services(self) -> None:
        """Guard the services that rclpy has created, and let both services that set parameters set all or none."""

        def set_parameters(request, response):
            response.results = [self._set_together(request.parameters)] * len(request.parameters)
            return response

        def set_parameters_atomically(request, response):
            response.result = self._set_together(request.parameters)
            return response

        own = {"set_parameters": set_parameters, "set_parameters_atomically": set_parameters_atomically}
        for service in self.services:
            callback = own.get(service.srv_name.rpartition("/")[2], service.callback)
            service.callback = contain_errors(callback, self.error_throttled)

    def _set_together(self, messages) -> SetParametersResult:
        if unknown := next((m.name for m in messages if not self.has_parameter(m.name)), None):
            return SetParametersResult(successful=False, reason=f"parameter '{unknown}': not a parameter of this node")
        try:
            return self.set_parameters_atomically([RclpyParameter.from_parameter_msg(message) for message in messages])
        except (ParameterException, ValueError, TypeError) as error:  # unknown type, or a value of another type
            return SetParametersResult(successful=False, reason=str(error))

    def set_parameters_atomically(self, parameter_list) -> SetParametersResult:
        """Set all parameters or none. A refusal names unit and range, which rclpy's does not."""
        reason = self._parameter_set.refusal(parameter_list)
        if reason:
            return SetParametersResult(successful=False, reason=reason)
        return super().set_parameters_atomically(parameter_list)

    # -- entities ------------------------------------------------------------------------------------------------------

    def _entities(self) -> set:
        lists = (self.publishers, self.subscriptions, self.timers, self.clients, self.services, self.waitables)
        return {entity for entities in lists for entity in entities}

    def _destroy_created(self) -> None:
        """Destroy every ROS entity created since configure began."""
        if self._created_before is None:
            return
        kept = self._created_before | {self._retry_timer}
        for entities, destroy in (
            (self.publishers, self._destroy_publisher),
            (self.subscriptions, self.destroy_subscription),
            (self.timers, self.destroy_timer),
            (self.clients, self.destroy_client),
            (self.services, self.destroy_service),
            (self.waitables, lambda waitable: waitable.destroy()),  # action servers and clients
        ):
            for entity in [e for e in entities if e not in kept]:
                destroy(entity)
        self._created_before = None

    def _destroy_publisher(self, publisher) -> None:
        if isinstance(publisher, LifecyclePublisher):
            self.destroy_lifecycle_publisher(publisher)
        else:
            self.destroy_publisher(publisher)

    # -- reports -------------------------------------------------------------------------------------------------------

    def _collect_diagnostics(self) -> list[Status]:
        state = self.state
        if self._problem:
            own = Status("lifecycle", WARN if self._waiting else ERROR, self._problem, {"state": state})
        else:
            own = Status("lifecycle", OK if state in ("active", "inactive") else WARN, state, {"state": state})
        return [own, *self.diagnose()]

    def _log_throttled(self, log: Callable[[str], None], key: str, message: str, period: float = LOG_PERIOD) -> None:
        # Each caller passes a function of its own: rclpy ties one severity to each line that logs, and raises when the
        # same line uses another.
        suppressed = self._throttle.passes(key, period)
        if suppressed is not None:
            log(f"{message} ({suppressed} more like it)" if suppressed else message)


def contain_errors(callback: Callable, report: Callable[[str, str], None]) -> Callable:
    """Return a service callback that reports exceptions and then sends the response's defaults (no success).

    rclpy lets an exception leave spin, so that one request could end a node. report: logs an error under a key,
    throttled, since a client may repeat its request often.
    """

    def failed(response):
        report(f"service {callback}", f"a request failed: {traceback.format_exc()}")
        return type(response)()

    if inspect.iscoroutinefunction(callback):

        @wraps(callback)
        async def guarded(request, response):
            try:
                return await callback(request, response)
            except Exception:
                return failed(response)

    else:

        @wraps(callback)
        def guarded(request, response):
            try:
                return callback(request, response)
            except Exception:
                return failed(response)

    return guarded

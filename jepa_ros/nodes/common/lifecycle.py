"""The shell that every node derives from: lifecycle, parameters, diagnostics, and an orderly end.

A node class implements configure, activate, deactivate and cleanup (all optional) in terms of the plain functions that
do the work. What this shell adds to rclpy's LifecycleNode:

- it configures and activates itself (`autostart`), and tries again at 2 Hz while something it needs is not there yet;
- an illegal transition request is answered with a refusal (rclpy lets the exception end the process);
- parameters are a schema (`parameters.py`), diagnostics are collected in one place (`diagnostics.py`);
- SIGINT and SIGTERM stop the motion first and end with exit code 0.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from types import SimpleNamespace

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, TransitionCallbackReturn

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.diagnostics import ERROR, OK, WARN, DiagnosticsPublisher, Status, Throttle
from jepa_ros.nodes.common.parameters import Parameter, ParameterSet
from jepa_ros.nodes.common.services import contained, guard_services

RETRY_PERIOD = 0.5
"""Seconds between attempts to configure while something is missing."""

_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_AUTOSTART = Parameter(
    "autostart",
    True,
    "Configure and activate without a lifecycle manager, as soon as what is needed is there.",
    read_only=True,
)


class NotReady(Exception):
    """Raised by configure or activate where something is not there yet. The text is one sentence that says what."""


class JepaNode(LifecycleNode):
    """Lifecycle node with a parameter schema, diagnostics and self-start.

    Hooks for subclasses, all called from the executor's thread:
    configure, activate: raise InputError to refuse with one line, NotReady to be tried again. ROS entities made in
    either are destroyed by cleanup (and by a configure that raises), so what must outlive that, such as a subscription
    that configure waits for, is made in the constructor.
    deactivate, cleanup: undo them. shutdown_motion: bring what moves to rest; called before deactivate when the process
    or the lifecycle ends while active; it must end by itself within a few seconds, and may publish.
    validate(values): raise InputError where parameters do not fit together; looks at nothing but its argument.
    parameters_changed(names): a change was accepted. diagnose(): a list of Status.

    Parameter values are attributes of `self.p`.
    """

    def __init__(self, name: str, parameters: Sequence[Parameter] = (), **kwargs) -> None:
        super().__init__(name, **kwargs)
        self._throttle = Throttle()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._made_before: set | None = None
        self._problem = ""  # why the last transition failed, in one sentence
        self._waiting = False
        self._motion_ended = False
        self._retry_timer = None
        self.exit_code: int | None = None
        self._parameter_set = ParameterSet(
            self,
            (_AUTOSTART, *parameters),
            validate=self.validate,
            configured=lambda: self.state not in ("unconfigured", "configuring"),
            changed=self.parameters_changed,
        )
        for hint in self._parameter_set.misspelt(getattr(self, "_parameter_overrides", {})):
            self.get_logger().warning(hint)
        self._survive_illegal_transitions()
        guard_services(self)
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

    def diagnose(self) -> list[Status]:
        return []

    # -- for subclasses ------------------------------------------------------------------------------------------------

    @property
    def p(self) -> SimpleNamespace:
        """The parameter values that hold now. Keep the object to see one consistent set across several reads."""
        return self._parameter_set.values

    @property
    def state(self) -> str:
        """Lifecycle state: unconfigured, inactive, active, finalized, or a transition's (configuring, ...)."""
        return self._state_machine.current_state[1]

    @property
    def active(self) -> bool:
        return self.state == "active"

    def now(self) -> float:
        """ROS time in s (sim time where use_sim_time is set)."""
        return self.get_clock().now().nanoseconds * 1e-9

    def steady_timer(self, period: float, callback: Callable[[], None]):
        """A timer on the steady clock: it fires whatever /clock does. period in s."""
        return self.create_timer(period, callback, clock=self._steady)

    def warn_throttled(self, key: str, message: str, period: float = 5.0) -> None:
        """Logs a warning at most once in `period` s for each key, with how many were held back meanwhile."""
        self._throttled(lambda text: self.get_logger().warning(text), key, message, period)

    def error_throttled(self, key: str, message: str, period: float = 5.0) -> None:
        """Logs an error at most once in `period` s for each key, with how many were held back meanwhile."""
        self._throttled(lambda text: self.get_logger().error(text), key, message, period)

    def diagnostics_changed(self) -> None:
        """Publishes diagnostics now if a level or message is another than was published last."""
        self._diagnostics.changed()

    def retry_now(self) -> None:
        """Something arrived that configure may have been waiting for: try again at once. Safe from any thread."""
        self._autostart_guard.trigger()

    def request_exit(self, code: int) -> None:
        """Ends the process in order, with this exit code."""
        self.exit_code = code
        if self.executor is not None:
            self.executor.create_task(lambda: None)  # lets spin_once return

    def create_service(self, srv_type, srv_name, callback, **options):
        """As rclpy's; a callback that raises does not end the node."""
        return super().create_service(srv_type, srv_name, contained(callback, self.error_throttled), **options)

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def on_configure(self, state) -> TransitionCallbackReturn:
        self._made_before = self._entities()
        if not self._attempt(self.configure):
            self._destroy_made()
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
        self._contained(self.deactivate)  # publishers still work in there: a last stop can be sent
        return super().on_deactivate(state)

    def on_cleanup(self, state) -> TransitionCallbackReturn:
        self._contained(self.cleanup)
        self._destroy_made()
        self._problem = ""
        return _SUCCESS

    def on_shutdown(self, state) -> TransitionCallbackReturn:
        if state.label == "active":
            self.end_motion()
            self._contained(self.deactivate)
            super().on_deactivate(state)
        if state.label in ("active", "inactive"):
            self._contained(self.cleanup)
            self._destroy_made()
        return _SUCCESS

    def end_motion(self) -> None:
        """shutdown_motion, once between an activation and the end of it."""
        if not self._motion_ended:
            self._motion_ended = True
            self._contained(self.shutdown_motion)

    def finish(self) -> None:
        """The last transition, from whatever state the node is in."""
        if self.state == "active":
            self.end_motion()
        if self.state in ("unconfigured", "inactive", "active"):
            self.trigger_shutdown()

    def _attempt(self, hook: Callable[[], None]) -> bool:
        """Runs configure or activate; on failure says why, and whether trying again makes sense."""
        self._problem, self._waiting = "", False
        try:
            hook()
            return True
        except NotReady as reason:
            self._problem, self._waiting = str(reason), True
            self._throttled(self._say, f"waiting {reason}", f"waiting: {reason}", 30.0)
        except InputError as error:
            self._problem = str(error)
            self.get_logger().error(self._problem)
        except Exception as error:  # a bug: tell all, but keep answering
            self._problem = f"{hook.__name__} failed with {type(error).__name__}: {error}"
            self.get_logger().error(traceback.format_exc())
        return False

    def _contained(self, hook: Callable[[], None]) -> None:
        """Runs a hook that must not prevent what comes after it."""
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

    def refused(self) -> None:
        """Called when self-start gave up because configure or activate refused; the node can be asked again."""

    def _set_retry(self, wanted: bool) -> None:
        if wanted and self._retry_timer is None:
            self._retry_timer = self.steady_timer(RETRY_PERIOD, self._autostart)
        elif not wanted and self._retry_timer is not None:
            self.destroy_timer(self._retry_timer)
            self._retry_timer = None

    def _survive_illegal_transitions(self) -> None:
        service = self._service_change_state
        inner = service.callback

        def change_state(request, response):
            self._autostart_pending = False  # somebody manages this node
            self._set_retry(False)
            before = self.state
            try:
                response = inner(request, response)
            except Exception as error:  # RCLError: no such transition from here
                response.success = False
                wanted = request.transition.label or request.transition.id
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                self.get_logger().warning(f"lifecycle request '{wanted}' refused: impossible while {before} ({reason})")
            self.diagnostics_changed()
            return response

        service.callback = change_state

    def set_parameters_atomically(self, parameter_list) -> SetParametersResult:
        """As rclpy's, but a refusal names unit and range (rclpy checks first, and says less)."""
        reason = self._parameter_set.refusal(parameter_list)
        if reason:
            return SetParametersResult(successful=False, reason=reason)
        return super().set_parameters_atomically(parameter_list)

    # -- entities ------------------------------------------------------------------------------------------------------

    def _entities(self) -> set:
        lists = (self.publishers, self.subscriptions, self.timers, self.clients, self.services, self.waitables)
        return {entity for entities in lists for entity in entities}

    def _destroy_made(self) -> None:
        """Destroys every ROS entity that appeared since configure began."""
        if self._made_before is None:
            return
        kept = self._made_before | {self._retry_timer}
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
        self._made_before = None

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

    def _say(self, text: str) -> None:
        self.get_logger().info(text)

    def _throttled(self, log: Callable[[str], None], key: str, message: str, period: float) -> None:
        # log must be a function of its own that calls the logger: rclpy pins one severity to each line that logs, and
        # raises when that line asks for another.
        held = self._throttle.passes(key, period)
        if held is not None:
            log(f"{message} ({held} more like it)" if held else message)

"""A single-threaded executor that reuses its wait set.

rclpy's SingleThreadedExecutor builds a new wait set for every callback, and another because finishing a callback wakes
it again: 0.4 ms of CPU time for each message or timer of a node with the usual parameter and lifecycle services. With a
few hundred events per second in each of five nodes, that is a good part of two cores. LeanExecutor collects the
entities again only after some were created or destroyed, and runs all callbacks that are ready before it waits again.
Otherwise it behaves like rclpy's.

It does not wait for a subscription whose attribute `polled` is true: the node takes the messages itself.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from importlib import metadata

from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor, TimeoutObject
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.task import Task
from rclpy.utilities import timeout_sec_to_nsec
from rclpy.waitable import NumberOfEntities

SUPPORTED_RCLPY = "7.1."
"""rclpy releases (Jazzy's) whose internals LeanExecutor relies on."""
# Entities of a node, in the order of execution: attribute of the node, and rclpy's name of one entity.
_KINDS = {
    "timers": "timer",
    "subscriptions": "subscription",
    "guards": "guard_condition",
    "clients": "client",
    "services": "service",
}


def make_executor() -> SingleThreadedExecutor:
    """Return a LeanExecutor if the installed rclpy is supported, else rclpy's own executor."""
    try:
        supported = metadata.version("rclpy").startswith(SUPPORTED_RCLPY)
    except metadata.PackageNotFoundError:
        supported = False
    return LeanExecutor() if supported else SingleThreadedExecutor()


class LeanExecutor(SingleThreadedExecutor):
    """See the module."""

    def __init__(self, **kwargs) -> None:
        self._stale = True  # entities were created or destroyed since they were collected
        self._held = ExitStack()
        self._wait_set = None
        self._depth = 0  # running callbacks; more than one if a callback spins
        super().__init__(**kwargs)

    def wake(self) -> None:
        self._stale = True  # nodes call this when an entity is created or destroyed
        super().wake()

    def add_node(self, node) -> bool:
        self._stale = True
        return super().add_node(node)

    def remove_node(self, node) -> None:
        super().remove_node(node)
        self._release()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        self._release()
        return super().shutdown(timeout_sec)

    def _spin_once_impl(self, timeout_sec: float | TimeoutObject | None = None, wait_condition=lambda: False) -> None:
        if self._run_tasks() or wait_condition():
            return
        if isinstance(timeout_sec, TimeoutObject):
            timeout_sec = timeout_sec.timeout
        if not self._context.ok():
            raise ExternalShutdownException()
        self._wait(timeout_sec_to_nsec(timeout_sec))
        for entity, take in self._ready():
            self._execute(entity, take)
            if self._is_shutdown:
                return

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _collect_entities(self) -> None:
        """Collect the nodes' entities, and keep their handles from being destroyed while the executor waits."""
        self._release()
        self._stale = False
        nodes = self.get_nodes()
        self._entities = {kind: [] for kind in _KINDS}
        counts = NumberOfEntities()
        for kind in _KINDS:
            for entity in [e for node in nodes for e in getattr(node, kind) if not getattr(e, "polled", False)]:
                with suppress(InvalidHandle):  # just destroyed
                    self._held.enter_context(entity.handle)
                    self._entities[kind].append(entity)
        self._waitables = []
        for waitable in [w for node in nodes for w in node.waitables]:
            with suppress(InvalidHandle):
                self._held.enter_context(waitable)
                self._waitables.append(waitable)
                counts += waitable.get_num_entities()
        self._held.enter_context(self._context.handle)
        self._own_guards = [self._guard, self._sigint_gc]
        self._wait_set = _rclpy.WaitSet(
            counts.num_subscriptions + len(self._entities["subscriptions"]),
            counts.num_guard_conditions + len(self._entities["guards"]) + len(self._own_guards),
            counts.num_timers + len(self._entities["timers"]),
            counts.num_clients + len(self._entities["clients"]),
            counts.num_services + len(self._entities["services"]),
            counts.num_events,
            self._context.handle,
        )

    def _release(self) -> None:
        self._stale = True
        self._held.close()
        self._wait_set = None

    def _wait(self, timeout_ns: int) -> None:
        if self._stale:
            self._collect_entities()
        wait_set, entities = self._wait_set, self._entities
        # A callback group is busy only while a coroutine is unfinished, or within a callback that spins.
        check_groups = bool(self._tasks or self._depth)

        def may_run(entity) -> bool:
            return not check_groups or entity.callback_group.can_execute(entity)

        wait_set.clear_entities()
        for kind, name in _KINDS.items():
            add = getattr(wait_set, f"add_{name}")
            for entity in entities[kind]:
                if may_run(entity):
                    add(entity.handle)
        for guard in entities["guards"]:
            if guard._executor_triggered:  # noticed but not handled, because an earlier callback raised
                guard.trigger()
        for guard in self._own_guards:
            wait_set.add_guard_condition(guard.handle)
        self._waited_for = [w for w in self._waitables if may_run(w)]
        for waitable in self._waited_for:
            waitable.add_to_wait_set(wait_set)
        wait_set.wait(timeout_ns)
        if not self._context.ok():
            raise ExternalShutdownException()

    def _ready(self) -> list[tuple]:
        """Return all ready entities in rclpy's order, each with the method that takes its data."""
        wait_set, entities = self._wait_set, self._entities
        ready = [(w, self._take_waitable) for w in self._waited_for if w.is_ready(wait_set)]
        for kind, name in _KINDS.items():
            if not (pointers := wait_set.get_ready_entities(name)):
                continue
            take = getattr(self, f"_take_{name}")
            for entity in entities[kind]:
                if entity.handle.pointer in pointers:
                    if kind == "guards":
                        entity._executor_triggered = True  # waiting has reset the trigger
                    ready.append((entity, take))
        return ready

    # -- running -------------------------------------------------------------------------------------------------------

    def _execute(self, entity, take) -> None:
        try:
            if take == self._take_timer and not entity.handle.is_timer_ready():
                return  # cancelled or reset in the meantime
        except InvalidHandle:
            return
        group = entity.callback_group
        if not group.beginning_execution(entity):
            return

        async def run():
            callback = None
            try:
                with suppress(InvalidHandle):  # another callback may have destroyed the entity
                    callback = take(entity)
                if callback is not None:
                    await callback()
            finally:
                group.ending_execution(entity)

        task = Task(run, executor=self)
        self._depth += 1
        try:
            task()
        finally:
            self._depth -= 1
        if not task.done():  # it awaits something; other callbacks run in the meantime
            with self._tasks_lock:
                self._tasks.append((task, entity, None))
        elif task.exception() is not None:
            raise task.exception()

    def _run_tasks(self) -> bool:
        """Run new tasks and continue unfinished coroutines; return whether any has finished."""
        with self._tasks_lock:
            tasks = [task for task, _, _ in self._tasks]
        for task in tasks:
            if not task.done() and not task.cancelled() and not task.executing():
                task()
        if not tasks:
            return False
        with self._tasks_lock:
            finished = [t for t in self._tasks if t[0].done() or t[0].cancelled()]
            self._tasks = [t for t in self._tasks if t not in finished]
        for task, _, _ in finished:
            if not task.cancelled() and task.exception() is not None:
                raise task.exception()
        return bool(finished)

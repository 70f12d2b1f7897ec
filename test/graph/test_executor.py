"""The executor that reuses its wait set behaves like rclpy's: both go through the same tests."""

import threading
import time

import pytest
import rclpy
from jepa_msgs.action import ReachGoal
from rclpy.action import ActionClient, ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String
from std_srvs.srv import Trigger

from jepa_ros.nodes.common.executor import LeanExecutor

pytestmark = pytest.mark.smoke


@pytest.fixture(params=[LeanExecutor, SingleThreadedExecutor])
def bench(request):
    rclpy.init(args=[])
    executor = request.param()
    node = rclpy.create_node("executor_test")
    executor.add_node(node)
    yield executor, node
    executor.remove_node(node)
    node.destroy_node()
    executor.shutdown(timeout_sec=1.0)
    rclpy.try_shutdown()


def spin_until(executor, condition, timeout=30.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        executor.spin_once(timeout_sec=0.1)


def test_messages_and_timers_are_served_in_order_without_loss(bench):
    executor, node = bench
    heard, ticks = [], []
    node.create_subscription(String, "talk", lambda m: heard.append(int(m.data)), 100)
    publisher = node.create_publisher(String, "talk", 100)
    spin_until(executor, publisher.get_subscription_count)
    node.create_timer(0.002, lambda: ticks.append(publisher.publish(String(data=str(len(ticks))))))
    spin_until(executor, lambda: len(heard) >= 50)
    assert heard == list(range(len(heard)))


def test_a_coroutine_may_await_a_service_of_the_same_node(bench):
    executor, node = bench
    group = ReentrantCallbackGroup()
    answers = []

    def serve(request, response):
        response.message = "served"
        return response

    async def ask():
        timer.cancel()
        answers.append((await client.call_async(Trigger.Request())).message)

    node.create_service(Trigger, "serve", serve, callback_group=group)
    client = node.create_client(Trigger, "serve", callback_group=group)
    spin_until(executor, client.service_is_ready)
    timer = node.create_timer(0.01, ask, callback_group=group)
    spin_until(executor, lambda: answers)
    assert answers == ["served"]


def test_goals_give_feedback_and_can_be_cancelled(bench):
    executor, node = bench
    group = ReentrantCallbackGroup()
    wake = []

    async def execute(handle):
        while not handle.is_cancel_requested:
            handle.publish_feedback(ReachGoal.Feedback(distance=1.0))
            future = rclpy.task.Future(executor=executor)
            wake.append(future)
            await future
        handle.canceled()
        return ReachGoal.Result(reached=False, code=ReachGoal.Result.CANCELLED)

    def resume():
        while wake:
            wake.pop().set_result(None)

    server = ActionServer(
        node, ReachGoal, "reach", execute, cancel_callback=lambda _: CancelResponse.ACCEPT, callback_group=group
    )
    node.create_timer(0.01, resume, callback_group=group)
    client = ActionClient(node, ReachGoal, "reach", callback_group=group)
    spin_until(executor, client.server_is_ready)
    feedback = []
    sent = client.send_goal_async(ReachGoal.Goal(), feedback_callback=feedback.append)
    spin_until(executor, sent.done)
    result = sent.result().get_result_async()
    spin_until(executor, lambda: len(feedback) > 3)
    sent.result().cancel_goal_async()
    spin_until(executor, result.done)
    assert result.result().result.code == ReachGoal.Result.CANCELLED
    server.destroy()
    client.destroy()


def test_callbacks_may_create_and_destroy_entities(bench):
    executor, node = bench
    seen = []

    def second():
        node.destroy_timer(made.pop())
        seen.append("second")

    made = []

    def first():
        node.destroy_timer(timer)
        node.destroy_subscription(subscription)
        made.append(node.create_timer(0.01, second))
        seen.append("first")

    subscription = node.create_subscription(String, "talk", seen.append, 10)
    timer = node.create_timer(0.01, first)
    spin_until(executor, lambda: "second" in seen)
    for _ in range(5):
        executor.spin_once(timeout_sec=0.02)
    assert seen == ["first", "second"]


def test_an_exception_leaves_spin_and_the_executor_can_continue(bench):
    executor, node = bench
    calls = []

    def tick():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("first")

    node.create_timer(0.01, tick)
    with pytest.raises(RuntimeError, match="first"):
        spin_until(executor, lambda: False)
    spin_until(executor, lambda: len(calls) > 2)


def test_a_task_from_another_thread_wakes_the_executor(bench):
    executor, _ = bench
    done = []
    thread = threading.Timer(0.1, lambda: executor.create_task(lambda: done.append(1)))
    thread.start()
    began = time.monotonic()
    while not done:
        executor.spin_once(timeout_sec=20.0)
    assert time.monotonic() - began < 10.0
    thread.join()


def test_a_guard_condition_runs_once_per_trigger(bench):
    executor, node = bench
    calls = []
    guard = node.create_guard_condition(lambda: calls.append(1))
    guard.trigger()
    spin_until(executor, lambda: calls)
    executor.spin_once(timeout_sec=0.05)
    executor.spin_once(timeout_sec=0.05)
    assert len(calls) == 1


def test_spinning_returns_on_timeout_and_when_a_future_is_done(bench):
    executor, node = bench
    began = time.monotonic()
    executor.spin_once(timeout_sec=0.1)
    while time.monotonic() - began < 0.1:  # woken early by the node's own making
        executor.spin_once(timeout_sec=0.1)
    assert time.monotonic() - began < 5.0
    future = rclpy.task.Future(executor=executor)
    node.create_timer(0.02, lambda: future.set_result(7))
    executor.spin_until_future_complete(future, timeout_sec=20.0)
    assert future.result() == 7


def test_a_callback_may_spin_for_another_callback_group(bench):
    executor, node = bench
    heard, nested = [], []
    node.create_timer(0.01, lambda: heard.append(1), callback_group=ReentrantCallbackGroup())

    def spins():
        timer.cancel()
        spin_until(executor, lambda: len(heard) > 3)
        nested.append(len(heard))

    timer = node.create_timer(0.01, spins)
    spin_until(executor, lambda: nested)
    assert nested[0] > 3

"""Motion enable: a required e-stop, a dead-man switch, and the speed scale at run time."""

import pytest
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from helpers.gate_peers import GOAL, START, Bench, minimum_jerk
from jepa_ros.nodes.common.qos import LATCHED

pytestmark = pytest.mark.graph


def refused(bench, word):
    """Send a plan that is rejected; check that the status has the cause."""
    before = bench.status.rejected
    bench.plan(minimum_jerk(START, GOAL))
    bench.client.wait_for(lambda: bench.status.rejected > before, "the refusal")
    assert word in bench.status.text


def holding(bench):
    bench.description.publish(bench.describe())
    bench.until("HOLDING", timeout=30.0)
    bench.client.wait_for(bench.plans.get_subscription_count, "the gate to listen")


def test_a_required_e_stop_must_have_a_publisher(start, client):
    bench = Bench(start, client, "required", require_e_stop=True)
    holding(bench)
    refused(bench, "nothing publishes e_stop")
    button = client.node.create_publisher(Bool, f"{bench.name}/e_stop", LATCHED)
    button.publish(Bool(data=False))
    bench.moving()
    client.node.destroy_publisher(button)
    bench.until("STOPPING", "nothing publishes e_stop")
    assert bench.rests() and bench.wrong == []
    bench.close()


@pytest.mark.parametrize("kind", ["joy", "bool"])
def test_the_arm_moves_only_while_the_dead_man_switch_is_held(start, client, kind):
    bench = Bench(start, client, f"deadman_{kind}", require_deadman=True, deadman_type=kind, deadman_button=2)
    switch = client.node.create_publisher(Joy if kind == "joy" else Bool, f"{bench.name}/deadman", 10)
    held = [False]

    def publish():
        pressed = Joy(buttons=[0, 0, int(held[0])]) if kind == "joy" else Bool(data=held[0])
        switch.publish(pressed)

    timer = client.node.create_timer(0.05, publish)
    holding(bench)
    refused(bench, "dead-man switch is not held")
    held[0] = True
    bench.moving()
    held[0] = False
    bench.until("STOPPING", "not held")
    assert bench.rests()
    held[0] = True
    bench.moving()  # by itself, once it is held again
    client.node.destroy_timer(timer)
    bench.until("STOPPING", "no dead-man switch")
    assert bench.rests() and bench.wrong == []
    bench.close()


def test_the_speed_scale_can_be_changed_while_the_arm_moves(start, client):
    bench = Bench(start, client, "speed")
    bench.moving()
    assert client.set_parameters(f"{bench.name}/arm_gate", speed_scale=0.1)[0].successful
    bench.until("STOPPING", "speed scale was lowered to 0.10")
    assert bench.rests() and bench.status.speed_scale == pytest.approx(0.1)
    clipped = bench.status.clipped
    here = bench.positions[-1][1]
    bench.follow(minimum_jerk(here, here + 0.2, 0.6), 30)  # twice as fast as the scale allows
    client.wait_for(lambda: bench.status.clipped > clipped, "the plan to be slowed")
    bench.until("HOLDING")
    assert not client.set_parameters(f"{bench.name}/arm_gate", speed_scale=1.5)[0].successful
    assert client.set_parameters(f"{bench.name}/arm_gate", speed_scale=1.0)[0].successful
    clipped = bench.status.clipped
    bench.ready()
    bench.follow(minimum_jerk(START, GOAL), 31)
    bench.until("HOLDING")
    assert bench.status.clipped == clipped and bench.wrong == []
    bench.close()

"""A running graph is sent a hundred thousand random, extreme and mutated messages on all that it listens to."""

import signal
import statistics
from collections import Counter

import numpy as np
import pytest

from helpers import reach_bag
from helpers.fuzz_requests import place
from helpers.fuzzed_graph import PLACES, FuzzedGraph
from helpers.fuzzed_nodes import PLAIN_MALLOC, PLAYED, RECORDED, processes
from helpers.message_fuzzer import Fuzzer, read, save
from jepa_ros.bags.reader import open_bag
from jepa_ros.resources import list_models

pytestmark = [
    pytest.mark.alone,  # as many messages as the graph can take: it keeps both cores busy
    pytest.mark.skipif("openarm_reach" not in list_models(), reason="needs the model that ships"),
]

ROUNDS, LEAST, ALL = 1000, 1000, 100_000
GROWTH = 32e6  # bytes that a node may gain between the last two quarters of a phase
STEERS = ("stop", "release", "reset", "set_state", "change_state", "send_goal", "cancel_goal")
REPORTS = ("controller_state", "activity")  # of the controllers, where their messages are installed
GATE_HEARS = ("/plan", "/latent", "/joint_states", *REPORTS)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The folder in which the recorder leaves its bags."""
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def graph(start, client, recordings, tmp_path_factory):
    nodes = processes(recordings / "bag", reach_bag.write(tmp_path_factory.mktemp("play") / "bag"))
    with pytest.MonkeyPatch.context() as environment:
        for name, value in PLAIN_MALLOC.items():
            environment.setenv(name, value)
        graph = FuzzedGraph(start, client, nodes)
    graph.fuzzer = Fuzzer(np.random.default_rng(0), graph.words)
    yield graph
    graph.close()


def bombard(graph, topics, services, moving=True, messages=2, watched=lambda: None):
    """ROUNDS rounds of some messages to each topic and one request to each service, all answered before the next."""
    for k in range(ROUNDS):
        for node, topic in topics:
            for _ in range(messages):
                graph.publish(graph.fuzzer, node, topic)
        graph.answers([graph.call_fuzzed(graph.fuzzer, *endpoint) for endpoint in services])
        watched()
        if k % 10 == 0:
            graph.alive()
            if moving:
                graph.move()
        if k % 5 == 0:
            graph.measure()
        if k % 100 == 99:
            graph.restore()
            graph.bring_up()
    graph.silence()
    graph.restore()
    graph.bring_up()


def once(endpoints):
    """One endpoint a topic, as a message reaches all who listen."""
    return list({topic: (node, topic) for node, topic in endpoints}.values())


def of(endpoints, names):
    return [e for e in endpoints if e[1] in names or e[1].rpartition("/")[2] in names]


def without(endpoints, others):
    return [e for e in endpoints if e not in others]


def grown(graph):
    """Bytes by node, from the last quarter but one to the last of what was measured since this was called last.

    Before that the middleware's pools grow to the largest message of each endpoint."""
    out = {}
    for name, values in graph.rss.items():
        quarter = len(values) // 4
        out[name] = statistics.median(values[-quarter:]) - statistics.median(values[-2 * quarter : -quarter])
    graph.rss.clear()
    return out


def only_recorded(graph):
    """Topics that no other node than the recorder hears."""
    others = {topic for node, topic in graph.topics if node != "/recorder"}
    return [e for e in graph.topics if e[1] not in others and e[1] != graph.command_topic]


def steers(graph):
    return of(graph.services, STEERS)


def test_random_messages_on_non_command_topics_are_survived_in_motion(graph):
    steering = of(graph.topics, (*GATE_HEARS, graph.command_topic, "/e_stop"))
    topics = without(graph.topics, [*steering, *only_recorded(graph)])
    services = without(graph.services, steers(graph))
    bombard(graph, once(topics), services)
    assert graph.auditor.violations == [] and graph.auditor.windows > 50
    assert max((growth := grown(graph)).values()) < GROWTH, growth
    slow = {e: n for e, n in graph.unanswered.items() if n > 0.02 * ROUNDS and "get_result" not in e[1]}
    assert not slow


def gate_is_bombarded(graph, topic):
    """Whatever is said on a topic that the gate follows, no window leaves the limits, and the arm moves on after it."""
    bombard(graph, once(of(graph.topics, (topic,))), of(graph.services, ("get_state",)), messages=3)
    assert graph.auditor.violations == []
    graph.moves_on()
    assert max((growth := grown(graph)).values()) < GROWTH, growth


def test_random_plans_never_cause_a_window_outside_the_limits(graph):
    before = graph.auditor.windows
    gate_is_bombarded(graph, "/plan")
    assert graph.auditor.windows > before + 10
    rejected = int(graph.gate_says("rejected"))
    assert rejected > 0.5 * graph.sent["/arm_gate", "/plan"], "plans did not arrive"


def test_random_latents_never_cause_a_window_outside_the_limits(graph):
    gate_is_bombarded(graph, "/latent")


def test_false_joint_states_never_cause_a_window_outside_the_limits(graph):
    graph.lied_to = True
    gate_is_bombarded(graph, "/joint_states")
    graph.lied_to = False


def test_false_reports_of_controllers_never_cause_a_window_outside_the_limits(graph):
    graph.lied_to = True  # about where they hold the arm
    bombard(graph, once(of(graph.topics, REPORTS)), of(graph.services, ("get_state",)), moving=False, messages=3)
    assert graph.auditor.violations == []
    graph.moves_on()
    graph.lied_to = False
    assert max((growth := grown(graph)).values()) < GROWTH, growth


def test_random_messages_to_the_recorder_are_survived(graph):
    graph.hear_diagnostics(False)
    bombard(graph, only_recorded(graph), of(graph.services, ("get_state",)), moving=False)
    graph.hear_diagnostics(True)
    assert graph.auditor.violations == []
    assert max((growth := grown(graph)).values()) < GROWTH, growth


def test_random_commands_and_service_calls_are_survived(graph):
    graph.excused = True  # the arm is put elsewhere, and the controller's topic carries our own garbage
    topics = of(graph.topics, (graph.command_topic, "/e_stop"))
    bombard(graph, once(topics), steers(graph), moving=False, watched=graph.bring_up)
    assert max((growth := grown(graph)).values()) < GROWTH, growth


def test_after_the_fuzzing_goals_are_reached_and_all_messages_were_sent(graph):
    graph.recover()
    graph.excused = False
    for xy in PLACES:
        request = graph.goals.send(place(xy))
        graph.until(lambda request=request: request.outcome, "the goal's end", 90.0)
        assert request.outcome.reached, (request.outcome.reason, graph.values)
    assert graph.auditor.violations == []
    least = min(graph.sent.items(), key=lambda item: item[1])
    assert set(graph.sent) == {*graph.topics, *graph.services} and least[1] >= LEAST, least
    assert sum(graph.sent.values()) >= ALL
    print(f"sent {dict(Counter(node for node, _ in graph.sent.elements()))}, {graph.undecodable} requests undecodable,")
    print(f"{graph.unsent} unsent, brought up {dict(graph.brought_up)}, latched {dict(graph.latched)},")
    moved = f"{graph.anchored} from where the arm was moved to"
    print(f"{graph.auditor.windows} windows, {moved}, {len(graph.outcomes)} goals")


def test_bags_recorded_during_the_fuzzing_are_readable(graph, recordings):
    """Bytes are recorded as they came, whatever they are; a bag is whole, its counts are true."""
    recorder = graph.processes["/recorder"]
    recorder.signal(signal.SIGINT)
    assert recorder.wait(60.0) == 0, recorder.output
    assert "Traceback" not in recorder.output and "recording stopped" not in recorder.output
    total = Counter()
    for bag in recordings.iterdir():
        with open_bag(bag) as source:
            assert source.problems == [], bag
            counts = {t.topic: t.count for t in source.topics}
            found = Counter(m.topic for m in source.messages([(t.topic, t.msgtype) for t in source.topics]))
        assert found == Counter({topic: count for topic, count in counts.items() if count})
        total += found
    assert set(total) >= RECORDED, RECORDED - set(total)
    heard = {topic for node, topic in graph.topics if node == "/recorder"}
    short = {t: total[t] for t in heard - {PLAYED} if total[t] < 0.2 * graph.sent["/recorder", t]}
    assert not short, short
    print(f"{len(list(recordings.iterdir()))} bags, {total.total()} messages")


def test_the_player_survives_the_fuzzing(graph):
    player = graph.processes["/played/player"]
    assert "Traceback" not in player.output
    player.signal(signal.SIGINT)
    assert player.wait() == 0, player.output


def test_the_last_fuzzed_messages_are_saved_for_a_replay(tmp_path):
    sent = [("/plan", "jepa_msgs/msg/Plan", bytes(range(256))), ("/stop", "std_srvs/srv/Trigger", b"")]
    save(tmp_path / "kept" / "sent.jsonl", sent)
    assert read(tmp_path / "kept" / "sent.jsonl") == sent

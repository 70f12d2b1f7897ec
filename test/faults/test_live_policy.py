"""The SROS2 policy that ships says what the running nodes open: no less, or they would be deaf; no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers.nodes import environment
from helpers.policy_reader import differences, from_xml
from jepa_ros.resources import config_path
from jepa_ros.robot.config import load_robot
from jepa_ros.security.policy import check_commanders

COMMAND = "import sys; from jepa_ros.cli import app; app(prog_name='jepa_ros')"


def policy(*options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", COMMAND, "security", "policy", *options]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=200)


@pytest.mark.graph
@pytest.mark.slow
@pytest.mark.fault(20)
def test_the_shipped_policy_matches_the_live_graph(tmp_path):
    out = tmp_path / "sim.policy.xml"
    done = policy("--out", str(out))
    assert done.returncode == 0, done.stderr
    shipped = config_path("security/sim.policy.xml").read_text()
    found = from_xml(out.read_text())
    assert differences(from_xml(shipped), found) == []
    assert out.read_text() == shipped
    check_commanders(found, [f"/{controller.command_topic}" for controller in load_robot("openarm").controllers])


@pytest.mark.parametrize(
    "options, words",
    [(("--namespace", "a b"), "namespace 'a b'"), (("--robot", "r2d2"), "robot 'r2d2'")],
    ids=["namespace", "robot"],
)
def test_invalid_input_is_one_line_and_exit_2(tmp_path, options, words):
    done = policy("--out", str(tmp_path / "p.xml"), *options)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and words in done.stderr
    assert not (tmp_path / "p.xml").exists()

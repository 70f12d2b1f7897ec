#!/bin/bash
# Pinocchio 4.1.0, buildModelFromMJCF: only the first body below worldbody is read, and `ref` moves the limits.
# A valid MJCF with two arms side by side gives a model of one arm, without a word; a joint with range -1..1 and ref 0.5 gets
# the limits -1.5..0.5, where MuJoCo has -1..1 and starts at 0.5. MuJoCo reads the same file as two joints.
set -u
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --disable-pip-version-check pin==4.1.0 mujoco==4.0.0 2>/dev/null || exit 2
cd "$work" && venv/bin/python - <<'PYTHON'
import sys
from pathlib import Path

import mujoco
import pinocchio

arm = """<body name="{0}" pos="{1} 0 0"><joint name="joint_{0}" type="hinge" axis="0 0 1" limited="true" range="-1 1" ref="{2}"/>
<geom size=".1" mass="1"/></body>"""
arms = arm.format("left", 0, 0.5) + arm.format("right", 1, 0)
Path("two_arms.xml").write_text(
    f"<mujoco><compiler angle=\"radian\"/><worldbody>{arms}</worldbody></mujoco>"
)
ours = mujoco.MjModel.from_xml_path("two_arms.xml")
theirs = pinocchio.buildModelFromMJCF("two_arms.xml")
limits = [float(theirs.lowerPositionLimit[0]), float(theirs.upperPositionLimit[0])]
print("pinocchio", pinocchio.__version__, "| joints:", list(theirs.names)[1:], "limits of the first:", limits)
print("mujoco", mujoco.__version__, "| joints:", ours.njnt, "limits of the first:", ours.jnt_range[0].tolist())
sys.exit(not (list(theirs.names)[1:] == ["joint_left"] and limits == [-1.5, 0.5] and ours.njnt == 2))
PYTHON

#!/bin/bash
# mujoco 4.0.0: a joint's type equals its enum value in one order of the operands only, so `in` never finds it.
# model.jnt_type holds numpy.int32. `numpy.int32 == mjtJoint` is True, `mjtJoint == numpy.int32` is False, and `in` asks the second way. Code such as
# `model.jnt_type[j] in (mjJNT_HINGE, mjJNT_SLIDE)` finds no joint, without an error. Compare int(value) on both sides.
set -u
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --disable-pip-version-check mujoco==4.0.0 numpy==2.4.6 2>/dev/null || exit 2
cd "$work" && venv/bin/python - <<'PYTHON'
import sys

import mujoco

xml = "<mujoco><worldbody><body><joint type=\"hinge\"/><geom size=\".1\"/></body></worldbody></mujoco>"
kind = mujoco.MjModel.from_xml_string(xml).jnt_type[0]
hinge = mujoco.mjtJoint.mjJNT_HINGE
seen = {
    "jnt_type[0] == mjJNT_HINGE": bool(kind == hinge),
    "mjJNT_HINGE == jnt_type[0]": bool(hinge == kind),
    "jnt_type[0] in (mjJNT_HINGE,)": kind in (hinge,),
    "int(jnt_type[0]) == int(mjJNT_HINGE)": int(kind) == int(hinge),
}
print("mujoco", mujoco.__version__, "| a hinge joint;", type(kind).__name__)
for expression, value in seen.items():
    print(f"  {expression}: {value}")
sys.exit(list(seen.values()) != [True, False, False, True])
PYTHON

#!/bin/bash
# sensor_msgs Image in Python (wheels of Jazzy, 5.3.6): filling `data` from an ndarray costs a hundred times what bytes cost.
# The setter tests every element in a Python loop unless it is given bytes or an array.array("B"); a memoryview is no better.
# For a 640 x 480 image that is more than a frame time at 15 Hz. jepa_ros fills an array.array.
set -u
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --disable-pip-version-check ros-jazzy-rclpy==7.1.6 ros-jazzy-common-interfaces==5.3.6 numpy==2.4.6 2>/dev/null || exit 2
cd "$work" && venv/bin/python - <<'PYTHON'
import array
import importlib.metadata
import sys
import time

import numpy as np
from sensor_msgs.msg import Image

pixels = np.zeros(640 * 480 * 3, np.uint8)
message = Image()


def assign_array():
    data = array.array("B")
    data.frombytes(memoryview(pixels))
    message.data = data


def milliseconds(function):
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


quick = milliseconds(assign_array)
slow = {
    "ndarray": milliseconds(lambda: setattr(message, "data", pixels)),
    "memoryview": milliseconds(lambda: setattr(message, "data", memoryview(pixels))),
}
print("ros-jazzy-common-interfaces", importlib.metadata.version("ros-jazzy-common-interfaces"), "| 921,600 bytes")
for name, value in slow.items():
    print(f"  {name}: {value:.1f} ms, {value / quick:.0f} times an array.array ({quick:.2f} ms)")
sys.exit(min(slow.values()) < 20 * quick)
PYTHON

#!/bin/sh
# Finds a Python that can hold the environment and hands over to tools/set_up.py. PYTHON=... names one.
cd "$(dirname "$0")/.." || exit 2

usable() {
    "$1" -c 'import sys; raise SystemExit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

if [ -n "$PYTHON" ]; then
    usable "$PYTHON" || { echo "setup: PYTHON=$PYTHON: expected Python 3.10 to 3.12, found another version or none" >&2; exit 2; }
    exec "$PYTHON" tools/set_up.py "$@"
fi
# A sourced distribution belongs to one Python: that one goes first.
if [ -n "$ROS_DISTRO" ]; then
    for candidate in python3 /usr/bin/python3; do
        if usable "$candidate" && "$candidate" -c 'import rclpy' >/dev/null 2>&1; then
            exec "$candidate" tools/set_up.py "$@"
        fi
    done
fi
for candidate in python3 python3.11 python3.12 python3.10 /usr/bin/python3; do
    if usable "$candidate"; then
        exec "$candidate" tools/set_up.py "$@"
    fi
done
found=$(python3 --version 2>/dev/null || echo "no python3")
echo "setup: expected Python 3.10 to 3.12 on PATH, found $found; install one or name it with PYTHON=/path/to/python3" >&2
exit 2

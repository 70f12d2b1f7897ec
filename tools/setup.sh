#!/bin/sh
# Finds a Python that can hold the environment and hands over to tools/set_up.py. PYTHON=... names one.
# Arguments: groups of packages, see tools/set_up.py.
cd "$(dirname "$0")/.." || exit 2

usable() {
    "$1" -c 'import sys; raise SystemExit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

refuse() {
    echo "setup: $1" >&2
    exit 2
}

# A shim of pyenv starts nothing if its version is not selected in this directory: take the interpreter behind it.
behind_shim() {
    name=$(basename "$1")
    for version in $(PYENV_VERSION='' pyenv whence "$name" 2>/dev/null); do
        found=$(pyenv root)/versions/$version/bin/$name
        if usable "$found"; then
            echo "$found"
            return
        fi
    done
}

if [ -n "$PYTHON" ]; then
    command -v "$PYTHON" >/dev/null || refuse "PYTHON=$PYTHON: no such command"
    if ! usable "$PYTHON"; then
        version=$("$PYTHON" -c 'import sys; print("Python %d.%d" % sys.version_info[:2])' 2>&1) && \
            refuse "PYTHON=$PYTHON is $version: expected Python 3.10 to 3.12"
        behind=$(behind_shim "$(command -v "$PYTHON")")
        [ -n "$behind" ] || refuse "PYTHON=$PYTHON: expected Python 3.10 to 3.12, but it does not start: $(echo "$version" | head -n 1)"
        PYTHON=$behind
    fi
    export PYTHON
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
for candidate in python3 python3.11 python3.12 python3.10 /usr/bin/python3 .venv/bin/python; do
    if usable "$candidate"; then
        exec "$candidate" tools/set_up.py "$@"
    fi
done
found=$(python3 --version 2>/dev/null || echo "no python3")
refuse "expected Python 3.10 to 3.12 on PATH, found $found; install one or name it with PYTHON=/path/to/python3"

#!/bin/bash
# Becomes the given command with everything sourced: ROS, this package, its Python packages, and a workspace of your own
# in /data/ws where there is one. It is the image's entrypoint, which `docker compose exec SERVICE sourced COMMAND` takes
# again: exec knows nothing of entrypoints.
set -e

# Their scripts read variables that may be unset, so no `set -u`. They are written for Ubuntu's image, not for linters.
# shellcheck disable=SC1091
source /opt/ros/jazzy/setup.bash
# shellcheck disable=SC1091
source /opt/jepa_ros/local_setup.bash
if [ -f /data/ws/install/local_setup.bash ]; then
    # shellcheck disable=SC1091
    source /data/ws/install/local_setup.bash
fi
# Before the distribution's packages: what it has and is older (pydantic) is not meant.
export PYTHONPATH="/opt/venv/lib/python3.12/site-packages${PYTHONPATH:+:$PYTHONPATH}"
exec "$@"

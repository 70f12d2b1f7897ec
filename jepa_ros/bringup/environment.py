"""Environment variables of our processes, so that no sourcing is needed and no other robot on the network is commanded.

The user's settings are kept: discovery range, domain, RMW, DDS profile, thread counts. Only missing ones are set.
rclpy and Fast DDS read these variables when they start, so call `ensure()` before rclpy is imported.
"""

import os
import random
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from jepa_ros.resources import config_path

# Domains whose ports are below Linux's ephemeral range, which any program may use (ROS 2, "The ROS_DOMAIN_ID").
DOMAINS = range(1, 102)

PROCESS_DEFAULTS = {
    "LP_NUM_THREADS": "1",  # MuJoCo's software renderer
    "OMP_NUM_THREADS": "1",  # OpenMP (torch)
    # glibc's malloc (mallopt(3)) by default keeps an arena, with its freed memory, for each thread of the middleware,
    # and a node's memory grows for hours. Blocks of a megabyte and more are rare enough to be mapped each time.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_TRIM_THRESHOLD_": "1048576",
}
"""Set for every process unless the user has set them."""
_DISCOVERY = ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER")
# Fast DDS 2 (Jazzy) reads the first, Fast DDS 3 (Kilted) the second.
_PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_TRANSPORTS = "FASTDDS_BUILTIN_TRANSPORTS"
# Fast DDS also takes these from the working directory.
_PROFILE_FILES = ("DEFAULT_FASTRTPS_PROFILES.xml", "DEFAULT_FASTDDS_PROFILES.xml")
_BOOTSTRAPPED = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"


def process_environment(base: Mapping[str, str] | None = None, *, isolate: bool = True) -> dict[str, str]:
    """Return the environment for a process of our graph, based on `base` (default: this process's).

    Sets what the user has not set: shared-memory transport large enough for camera images, PROCESS_DEFAULTS and, with
    `isolate`, discovery on this machine only and an unused domain. Simulation is isolated; what drives hardware joins
    the graph of the user's shell.
    Use one result for all processes of a graph: two calls without a domain choose two domains.
    """
    environment = dict(os.environ if base is None else base)
    if isolate and not any(environment.get(name) for name in _DISCOVERY):
        environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if isolate and not environment.get("ROS_DOMAIN_ID"):
        environment["ROS_DOMAIN_ID"] = str(free_domain())
    if not _has_own_transport(environment):
        local = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() == "LOCALHOST"
        profile = config_path("fastdds_localhost.xml" if local else "fastdds.xml")
        environment.update(dict.fromkeys(_PROFILES, str(profile)))
    environment = PROCESS_DEFAULTS | environment | log_directory(environment)
    _add_prefix(environment)
    return environment


def log_directory(environment: Mapping[str, str]) -> dict[str, str]:
    """Return {"ROS_LOG_DIR": ...} if the process has no writable directory for logs, else {}.

    rclpy does not start without one, and a container's user may have no home, or a read-only one.
    """
    if environment.get("ROS_LOG_DIR"):
        return {}
    home = environment.get("ROS_HOME") or (environment.get("HOME") and f"{environment['HOME']}/.ros")
    if home:
        missing = Path(home, "log")
        while not missing.exists() and missing != missing.parent:
            missing = missing.parent
        with suppress(OSError), tempfile.TemporaryFile(dir=missing):
            return {}
    return {"ROS_LOG_DIR": str(Path(tempfile.gettempdir(), "ros_log"))}


def ensure(*, isolate: bool = True) -> None:
    """Set this process's environment. Call it before rclpy is imported; calling it again changes nothing."""
    os.environ.update(process_environment(isolate=isolate))


def _has_own_transport(environment: Mapping[str, str]) -> bool:
    """Return whether the user chose another RMW than Fast DDS, a DDS profile or transports."""
    if environment.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") not in ("", "rmw_fastrtps_cpp"):
        return True
    if any(environment.get(name) for name in (*_PROFILES, _TRANSPORTS)):
        return True
    return any(Path(name).is_file() for name in _PROFILE_FILES)


def free_domain(candidates: Iterable[int] | None = None) -> int:
    """Return a domain without participants on this machine, drawn at random so that two commands rarely collide.

    candidates: domains to try in this order. Returns the last one if all are used.
    """
    domains = list(candidates) if candidates is not None else random.sample(DOMAINS, len(DOMAINS))
    return next((domain for domain in domains if _is_free(domain)), domains[-1])


def discovery_port(domain: int) -> int:
    """Return the UDP port of a domain's first participant (RTPS 2.5, 9.6.2.3: 7400 + 250 domain + 10)."""
    return 7400 + 250 * domain + 10


def _is_free(domain: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("0.0.0.0", discovery_port(domain)))
        except OSError:
            return False
    return True


def _add_prefix(environment: dict[str, str]) -> None:
    """Let ament's index and the loader find what is installed in this interpreter's environment."""
    prefix = Path(sys.prefix)
    if not environment.get("AMENT_PREFIX_PATH") and (prefix / "share" / "ament_index").is_dir():
        environment["AMENT_PREFIX_PATH"] = str(prefix)
    # The wheels' start-up hook sets the loader's path once and leaves this mark. With the mark of another environment
    # our interpreter would not set it.
    if str(prefix / "lib") not in environment.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        environment.pop(_BOOTSTRAPPED, None)

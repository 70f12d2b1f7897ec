"""How long `imagine` takes in the running graph, and what it does to the age of camera-rate latents.

    .venv/bin/python test/benchmarks/imagine.py [--model M] [--samples 4096] [--horizon 5] [--seconds 20] [--out FILE]

Starts the simulated graph, listens to `latent` while nothing is asked, then while one `imagine` follows the other, and
prints both as JSON. Age: from a frame's stamp to its latent's arrival here.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from jepa_ros.bringup.environment import process_environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="openarm_reach")
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--horizon", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ |= process_environment()  # this process listens in the nodes' own ROS domain
    command = [sys.executable, "-m", "jepa_ros.cli", "up", "sim", "--model", arguments.model]
    graph = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        text = json.dumps(measure(arguments), indent=2)
    finally:
        graph.terminate()
        graph.wait(30)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def measure(arguments: argparse.Namespace) -> dict:
    import rclpy
    from jepa_msgs.msg import LatentState
    from jepa_msgs.srv import Imagine
    from rclpy.executors import SingleThreadedExecutor

    from jepa_ros.nodes.common.convert import float32_array, to_seconds
    from jepa_ros.world_model.checkpoint import load_checkpoint

    rclpy.init()
    node, executor = rclpy.create_node("imagine_benchmark"), SingleThreadedExecutor()
    executor.add_node(node)
    ages: list[float] = []
    node.create_subscription(
        LatentState, "latent", lambda m: ages.append(1e3 * (time.time() - to_seconds(m.header.stamp))), 10
    )
    client = node.create_client(Imagine, "imagine")
    config = load_checkpoint(arguments.model).config
    shape = (arguments.samples, arguments.horizon, config.action_block)
    actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    request = Imagine.Request(samples=shape[0], horizon=shape[1], actions=float32_array(actions))
    until(executor, lambda: client.service_is_ready() and len(ages) > 30, 90.0)
    ages.clear()
    until(executor, lambda: False, arguments.seconds)
    idle = list(ages)
    ages.clear()
    took, whole, end = [], [], time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        begin, future = time.perf_counter(), client.call_async(request)
        until(executor, future.done, 60.0)
        if not future.result().success:
            raise SystemExit(f"imagine: {future.result().message}")
        whole.append(1e3 * (time.perf_counter() - begin))
        took.append(future.result().imagine_ms)
    executor.shutdown()
    rclpy.try_shutdown()
    return {
        "samples": shape[0],
        "horizon": shape[1],
        "calls": len(took),
        "imagine_ms": percentiles(took),
        "call_ms": percentiles(whole),
        "latent_age_idle_ms": percentiles(idle),
        "latent_age_busy_ms": percentiles(ages),
        "p99_ratio": float(np.percentile(ages, 99) / np.percentile(idle, 99)),
        "latents_hz": {"idle": len(idle) / arguments.seconds, "busy": len(ages) / arguments.seconds},
    }


def until(executor, condition, seconds: float) -> None:
    """Spin until the condition holds, at most so long."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)


def percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{p}": float(np.percentile(values, p)) for p in (50, 99)}


if __name__ == "__main__":
    main()

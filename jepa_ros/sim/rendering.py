"""Rendering of a running scene in its own thread, so that the control loop never waits for images."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import mujoco
import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.sim.scene import Scene

START_TIMEOUT = 30.0  # s for OpenGL to start, including compilation of shaders


class RenderWorker:
    """Renders states of a scene in its own thread, with its own OpenGL context and copy of the state.

    on_image(image (H, W, 3) uint8 RGB, tag) is called in that thread. niceness: added to the thread's, so that
    rendering yields to control where cores are few. Raises InputError where OpenGL cannot start.
    """

    def __init__(self, scene: Scene, on_image: Callable[[np.ndarray, object], None], niceness: int = 0) -> None:
        self._scene, self._on_image, self._niceness = scene, on_image, niceness
        self._data = mujoco.MjData(scene.model)
        self._job: tuple[np.ndarray, object] | None = None
        self._changed = threading.Condition()
        self._closing, self._started = False, False
        self.failure: str = ""
        self.seconds = 0.0  # duration of the last rendering
        self._thread = threading.Thread(target=self._run, name="render", daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._started or self.failure, START_TIMEOUT)
        if not self._started:
            raise InputError(f"rendering: expected OpenGL by EGL or OSMesa, found {self.failure or 'no answer'}")

    def submit(self, qpos: np.ndarray, tag: object) -> bool:
        """Render the state of generalised positions (nq,), unless busy; return whether it will be rendered."""
        if self._job is not None or self._closing:
            return False
        with self._changed:
            self._job = (qpos.copy(), tag)
            self._changed.notify_all()
        return True

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is being rendered; return False after `timeout` s."""
        with self._changed:
            return self._changed.wait_for(lambda: self._job is None, timeout)

    def close(self) -> None:
        """End the thread after the present image."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(5.0)

    def _run(self) -> None:
        try:
            # On Linux niceness is per thread; the renderer's own threads inherit it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + self._niceness)
            self._render(self._scene.data.qpos.copy())
            with self._changed:
                self._started = True
                self._changed.notify_all()
            while self._wait_for_job():
                qpos, tag = self._job
                begun = time.monotonic()
                image = self._render(qpos)
                self.seconds = time.monotonic() - begun
                self._on_image(image, tag)
                with self._changed:
                    self._job = None
                    self._changed.notify_all()
        except Exception as error:
            with self._changed:
                self.failure = f"{type(error).__name__}: {error}"
                self._job = None
                self._changed.notify_all()
        finally:
            self._scene.close_renderer()

    def _wait_for_job(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._job is not None or self._closing)
            return not self._closing

    def _render(self, qpos: np.ndarray) -> np.ndarray:
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._scene.model, self._data)
        mujoco.mj_comPos(self._scene.model, self._data)
        mujoco.mj_camlight(self._scene.model, self._data)
        return self._scene.render(self._data)

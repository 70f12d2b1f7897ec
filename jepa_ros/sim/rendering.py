"""Pictures of a running scene, drawn in a thread of their own so that the control loop never waits for them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import mujoco
import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.sim.scene import Scene

START_WITHIN = 30.0
"""Seconds that OpenGL may take to start; shaders are compiled then."""


class RenderWorker:
    """Draws states of a scene in its own thread, with its own OpenGL context and its own copy of the state.

    on_image(picture (H, W, 3) uint8 rgb, tag) is called in that thread. niceness: added to the thread's, so that
    drawing yields to control where cores are few. Raises InputError where OpenGL cannot start.
    """

    def __init__(self, scene: Scene, on_image: Callable[[np.ndarray, object], None], niceness: int = 0) -> None:
        self._scene, self._on_image, self._niceness = scene, on_image, niceness
        self._data = mujoco.MjData(scene.model)
        self._job: tuple[np.ndarray, object] | None = None
        self._changed = threading.Condition()
        self._closing, self._started = False, False
        self.failure: str = ""
        self.seconds = 0.0  # what the last picture took
        self._thread = threading.Thread(target=self._run, name="render", daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._started or self.failure, START_WITHIN)
        if not self._started:
            raise InputError(f"rendering: expected OpenGL by EGL or OSMesa, found {self.failure or 'no answer'}")

    @property
    def busy(self) -> bool:
        """Whether a picture is being drawn."""
        return self._job is not None

    def submit(self, qpos: np.ndarray, tag: object) -> bool:
        """Draws the state of these generalised positions (nq,), if it is not busy; says whether it will."""
        if self._job is not None or self._closing:
            return False
        with self._changed:
            self._job = (qpos.copy(), tag)
            self._changed.notify_all()
        return True

    def wait_idle(self, timeout: float) -> bool:
        """Waits until nothing is being drawn; False where that takes longer than timeout s."""
        with self._changed:
            return self._changed.wait_for(lambda: self._job is None, timeout)

    def close(self) -> None:
        """Ends the thread after the picture it is at."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(5.0)

    def _run(self) -> None:
        try:
            # Linux gives every thread a niceness; the renderer's own threads inherit it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + self._niceness)
            self._draw(self._scene.data.qpos.copy())
            with self._changed:
                self._started = True
                self._changed.notify_all()
            while self._next():
                qpos, tag = self._job
                begun = time.monotonic()
                picture = self._draw(qpos)
                self.seconds = time.monotonic() - begun
                self._on_image(picture, tag)
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

    def _next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._job is not None or self._closing)
            return not self._closing

    def _draw(self, qpos: np.ndarray) -> np.ndarray:
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._scene.model, self._data)
        mujoco.mj_comPos(self._scene.model, self._data)
        mujoco.mj_camlight(self._scene.model, self._data)
        return self._scene.render(self._data)

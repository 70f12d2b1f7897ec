"""An arm that follows what a controller hands it, exactly."""

import numpy as np

from jepa_ros.planning.receding_horizon import PlanStep


class Followed:
    """plans: those that were taken. rest: joints (J,) rad where it stands before the first. now: s on the ROS clock."""

    def __init__(self, controller, rest, now):
        self.controller, self.space, self.rest, self.now, self.plans = controller, controller.space, rest, now, []

    def reference(self, t):
        plan = next((p for p in reversed(self.plans) if p.start <= t + 1e-9), None)
        return (self.rest, np.zeros(7), np.zeros(7)) if plan is None else plan.trajectory.sample(t - plan.start)

    def tool(self):
        return self.space.tool_coordinates(self.reference(self.now)[0])

    def step(self):
        step = self.controller.plan_step(self.now)
        assert isinstance(step, PlanStep), step
        self.take(step)
        return step

    def take(self, step):
        """Follow it from its start on, after a look at how it joins what is followed until then."""
        for before, after in zip(self.reference(step.start), step.trajectory.sample(0.0), strict=True):
            np.testing.assert_allclose(after, before, atol=1e-6)
        self.plans.append(step)

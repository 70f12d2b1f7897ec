"""What a plan is to bring about: a weighted mixture of terms, each a distance of what is predicted to what is wanted.

A term's `distance` is in its own unit and says whether the goal is reached; its `cost` is what the search adds up.
Costs of places and postures are made comparable to latent distances by a scale: they are 1 where the distance is that
large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from jepa_ros.errors import InputError
from jepa_ros.planning import METRICS
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.heads import JOINTS, Probe, Reachability

if TYPE_CHECKING:
    from jepa_ros.planning.guardrails import Guardrails
    from jepa_ros.robot.motion.motion_space import MotionSpace


PLACE_SCALE = 0.15  # m
POSTURE_SCALE = 0.3  # rad
PLACE_TOLERANCE = 0.01  # m
POSTURE_TOLERANCE = 0.03  # rad


@dataclass(frozen=True)
class Outcome:
    """What is predicted of S candidates over H model steps, or what is seen now (S = H = 1).

    latents (S, H, *L). states (S, H, P), normalised. tool (S, H, D): where the plan leads the tool, in m.
    """

    latents: torch.Tensor
    states: torch.Tensor
    tool: torch.Tensor

    def to(self, device: torch.device) -> Outcome:
        """The same on a device."""
        return Outcome(*(x.to(device) for x in (self.latents, self.states, self.tool)))


class Term(Protocol):
    """One thing that is wanted. tolerance: the distance, in `unit`, at which it counts as reached."""

    weight: float
    tolerance: float
    unit: str

    def distance(self, outcome: Outcome) -> torch.Tensor:
        """(S, H), in `unit`."""

    def cost(self, outcome: Outcome) -> torch.Tensor:
        """(S, H), comparable between terms."""


def latent_distance(latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Mean square over the latent, of latents (..., *L) to goal (*L): (...,)."""
    return (latents - goal).square().flatten(-goal.ndim).mean(-1)


@dataclass(frozen=True)
class LatentTerm:
    """A latent (*L), of an image. metric: what the search goes by: l2 (mean square), l1 (mean absolute difference,
    V-JEPA 2-AC's energy), or reachability (the ticks that the way is expected to take, over `horizon` ticks)."""

    goal: torch.Tensor
    tolerance: float
    weight: float = 1.0
    metric: str = "l2"
    reachability: Reachability | None = None
    horizon: float = 20.0
    unit: str = "1"

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InputError(f"metric: expected one of {', '.join(METRICS)}, found '{self.metric}'")
        if self.metric == "reachability" and self.reachability is None:
            raise InputError("metric: reachability: expected a model that was trained with one, found none")

    def distance(self, outcome: Outcome) -> torch.Tensor:
        """See Term: the mean square difference, whatever the metric."""
        return latent_distance(outcome.latents, self.goal)

    def cost(self, outcome: Outcome) -> torch.Tensor:
        """See Term."""
        if self.metric == "l2":
            return self.distance(outcome)
        if self.metric == "l1":
            return (outcome.latents - self.goal).abs().flatten(-self.goal.ndim).mean(-1)
        shape = outcome.latents.shape[:2]
        latents, states = outcome.latents.flatten(0, 1).flatten(1), outcome.states.flatten(0, 1)
        ticks = self.reachability(latents, self.goal.flatten().expand(len(latents), -1), states)
        # Close by, ticks are coarse: the latent distance, small there, tells which of two places is the nearer.
        return (ticks / self.horizon).view(shape) + self.distance(outcome)


@dataclass(frozen=True)
class ToolTerm:
    """A place (D,) m of the tool where it moves."""

    place: torch.Tensor
    tolerance: float = PLACE_TOLERANCE
    weight: float = 1.0
    unit: str = "m"

    def distance(self, outcome: Outcome) -> torch.Tensor:
        """See Term."""
        return (outcome.tool - self.place).norm(dim=-1)

    def cost(self, outcome: Outcome) -> torch.Tensor:
        """See Term."""
        return (self.distance(outcome) / PLACE_SCALE).square()


@dataclass(frozen=True)
class PostureTerm:
    """Positions (J,) rad of the joints at `columns` (J,) of the proprioception; mean and std (J,) of these."""

    posture: torch.Tensor
    columns: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    tolerance: float = POSTURE_TOLERANCE
    weight: float = 1.0
    unit: str = "rad"

    def distance(self, outcome: Outcome) -> torch.Tensor:
        """See Term: the root of the mean square over the joints."""
        q = outcome.states[..., self.columns] * self.std + self.mean
        return (q - self.posture).square().mean(-1).sqrt()

    def cost(self, outcome: Outcome) -> torch.Tensor:
        """See Term."""
        return (self.distance(outcome) / POSTURE_SCALE).square()


@dataclass(frozen=True)
class ObjectTerm:
    """A position (k,) m in the base frame of what a probe reads off the latents."""

    probe: Probe
    position: torch.Tensor
    tolerance: float
    weight: float = 1.0
    unit: str = "m"

    def distance(self, outcome: Outcome) -> torch.Tensor:
        """See Term."""
        return (self.probe.read(outcome.latents) - self.position).norm(dim=-1)

    def cost(self, outcome: Outcome) -> torch.Tensor:
        """See Term."""
        return (self.distance(outcome) / PLACE_SCALE).square()


@dataclass(frozen=True)
class Goal:
    """Terms that count by their weights; the first one's distance is the one that is shown. Raises InputError where
    there is none, or a weight is not positive."""

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise InputError("goal: expected at least one term, found none")
        for term in self.terms:
            if not 0.0 < term.weight < float("inf"):
                raise InputError(f"goal: expected positive weights, found {term.weight:g}")

    @property
    def latent(self) -> torch.Tensor | None:
        """The first latent (*L) that is wanted, which the policy can propose ways to; None where none is."""
        return next((term.goal for term in self.terms if isinstance(term, LatentTerm)), None)

    @property
    def needs_states(self) -> bool:
        """Whether the joints must be known to say how far away it is."""
        return not all(isinstance(term, (LatentTerm, ObjectTerm)) for term in self.terms)

    def cost(self, outcome: Outcome) -> torch.Tensor:
        """(S, H)."""
        return sum(term.weight * term.cost(outcome) for term in self.terms)

    def distance(self, outcome: Outcome) -> torch.Tensor:
        """(S, H) of the first term, in its unit."""
        return self.terms[0].distance(outcome)

    def within(self, outcome: Outcome) -> torch.Tensor:
        """(S, H), whether every term is within its tolerance."""
        near = [term.distance(outcome) <= term.tolerance for term in self.terms]
        return torch.stack(near).all(0)


class GoalMaker:
    """Makes terms for one model on one robot. metric: of latents, see LatentTerm. Tolerances of 0 or less stand for the
    defaults: the model's own for latents and probes, PLACE_TOLERANCE and POSTURE_TOLERANCE. guardrails: what says that
    a place is forbidden."""

    def __init__(
        self, checkpoint: Checkpoint, space: MotionSpace, metric: str = "l2", guardrails: Guardrails | None = None
    ):
        self._checkpoint, self._space, self._metric, self._guardrails = checkpoint, space, metric, guardrails
        if metric != "l2":  # refused at once, not with the first goal
            self.latent(torch.zeros(checkpoint.config.latent_shape))

    def latent(self, goal: torch.Tensor, tolerance: float = 0.0, weight: float = 1.0) -> LatentTerm:
        """A latent (*L)."""
        with torch.inference_mode(False):  # one that was encoded in it may not take part in gradients
            goal = goal.to(self._checkpoint.device, copy=True)
        tolerance = tolerance if tolerance > 0 else self._checkpoint.config.distance.tolerance
        horizon = 5.0 * self._checkpoint.config.block
        return LatentTerm(goal, tolerance, weight, self._metric, self._checkpoint.reachability, horizon)

    def tool(self, position: np.ndarray, tolerance: float = 0.0, weight: float = 1.0) -> ToolTerm:
        """A tool position (3,) m in the base frame. Raises InputError for one off the plane, out of the workspace, or
        forbidden."""
        position = _finite("pose", position, 3)
        place = self._space.to_coordinates(position)
        if not self._space.is_inside(place):
            raise InputError(f"pose: expected a place in the workspace, found {np.round(place, 3).tolist()} m")
        room = 0.0 if self._guardrails is None else float(self._guardrails.clearance(place))
        if room < 0.0:
            raise InputError(
                f"pose: expected a place that nothing forbids, found {np.round(place, 3).tolist()} m, "
                f"{-room:.3f} m too near to a keep-out box, a joint limit or the robot itself"
            )
        tolerance = tolerance if tolerance > 0 else PLACE_TOLERANCE
        return ToolTerm(self._tensor(place), tolerance, weight)

    def posture(
        self, names: tuple[str, ...], positions: np.ndarray, tolerance: float = 0.0, weight: float = 1.0
    ) -> PostureTerm:
        """Joint positions (J,) rad by name. Raises InputError for joints that the model does not know."""
        config = self._checkpoint.config.proprioception
        if not names or (unknown := [n for n in names if n not in config.joints]):
            found = unknown if names else "none"
            raise InputError(f"joints: expected some of {list(config.joints)}, found {found}")
        values = self._tensor(_finite("joints", positions, len(names)))
        columns = [config.joints.index(n) for n in names]
        mean, std = (self._tensor(x)[columns] for x in (config.mean, config.std))
        tolerance = tolerance if tolerance > 0 else POSTURE_TOLERANCE
        return PostureTerm(values, torch.tensor(columns), mean, std, tolerance, weight)

    def object(self, name: str, position: np.ndarray, tolerance: float = 0.0, weight: float = 1.0) -> ObjectTerm:
        """A position m in the base frame for what the probe `name` reads. Raises InputError where there is none."""
        placed = {name: probe for name, probe in self._checkpoint.probes.items() if name != JOINTS}
        probe = placed.get(name)
        if probe is None:
            known = ", ".join(placed) or "no probe at all"
            raise InputError(f"object '{name}': expected one that the model has a probe for ({known})")
        wanted = self._tensor(_finite(f"object '{name}'", position, 3)[: probe.dimension])
        return ObjectTerm(probe, wanted, tolerance if tolerance > 0 else 2.0 * probe.error, weight)

    def _tensor(self, values: Sequence[float] | np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self._checkpoint.device)


def _finite(name: str, values: np.ndarray, count: int) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise InputError(f"{name}: expected {count} finite numbers, found {values.tolist()}")
    return values


SURE = 0.01
"""m between where the model sees the tool and where the plan leads it, up to which it is not called uncertain."""


@dataclass(frozen=True)
class Objective:
    """Costs of candidates. along: what the steps before the last count, which counts 1; with nothing along the way the
    search is indifferent to when it arrives, and dawdles. effort: price of the mean square action. smoothness: of the
    mean square change of an action from tick to tick. uncertainty: of the model's disagreement with itself, per
    (10 cm)²: how far the tool that it sees in its predicted latents (`sight`, its probe of the tool) is from where the
    plan leads it.
    """

    along: float = 0.3
    effort: float = 0.002
    smoothness: float = 0.0
    uncertainty: float = 0.0
    sight: Probe | None = None

    def __call__(self, goal: Goal, outcome: Outcome, actions: torch.Tensor) -> torch.Tensor:
        """outcome of S candidates, whose actions are (S, ticks, A) → costs (S,)."""
        cost = goal.cost(outcome)
        weights = torch.full_like(cost[0], self.along)
        weights[-1] = 1.0
        total = cost @ weights + self.effort * actions.square().mean((1, 2))
        if self.smoothness:
            total = total + self.smoothness * actions.diff(dim=1).square().mean((1, 2))
        if self.uncertainty and self.sight is not None:
            apart = (self.sight.read(outcome.latents)[..., : outcome.tool.shape[-1]] - outcome.tool).norm(dim=-1)
            total = total + self.uncertainty * ((apart - SURE).clamp(min=0.0) / 0.1).square().mean(1)
        return total

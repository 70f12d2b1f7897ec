"""Goals and the objective of the search.

A goal is a weighted sum of terms. A term's `distance` is in its own unit and decides whether the goal is reached; its
`cost` is minimised by the search. Costs of tool positions and postures are 1 at a distance of their scale, which makes
them comparable to latent distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import torch

from jepa_ros.errors import InputError
from jepa_ros.planning import METRICS
from jepa_ros.robot.motion.angles import TURN
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.heads import JOINTS, Probe, Reachability

if TYPE_CHECKING:
    from jepa_ros.planning.guardrails import Guardrails
    from jepa_ros.robot.motion.motion_space import MotionSpace


POSITION_SCALE_M = 0.15
POSTURE_SCALE_RAD = 0.3
POSITION_TOLERANCE_M = 0.01
POSTURE_TOLERANCE_RAD = 0.03
TOLERATED_DISAGREEMENT_M = 0.01
"""Distance between the tool position that the model predicts and the planned one that is not penalised."""


@dataclass(frozen=True)
class Outcome:
    """Prediction for S candidates over H model steps, or the present state (S = H = 1).

    latents (S, H, *L). states (S, H, P), normalised. tool (S, H, D): planned tool positions in m.
    """

    latents: torch.Tensor
    states: torch.Tensor
    tool: torch.Tensor

    def to(self, device: torch.device) -> Outcome:
        """Return a copy on a device."""
        return Outcome(*(x.to(device) for x in (self.latents, self.states, self.tool)))


class Term(Protocol):
    """One term of a goal. tolerance: the distance, in `unit`, within which the term is reached."""

    @property
    def weight(self) -> float: ...

    @property
    def tolerance(self) -> float: ...

    @property
    def unit(self) -> str: ...

    def distance(self, outcome: Outcome) -> torch.Tensor:
        """Return the distance (S, H) in `unit`."""

    def cost(self, outcome: Outcome) -> torch.Tensor:
        """Return the cost (S, H), comparable between terms."""


def latent_distance(latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Return the mean square difference (...,) of latents (..., *L) to a goal (*L)."""
    return (latents - goal).square().flatten(-goal.ndim).mean(-1)


def latent_distance_pairs(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    """Return (N,) mean squares over the latent, between rows of two (N, *L)."""
    return (first - second).square().flatten(1).mean(1).numpy()


@dataclass(frozen=True)
class LatentTerm:
    """A goal image's latent (*L). metric: what the search minimises: l2 (mean square), l1 (mean absolute difference,
    V-JEPA 2-AC's energy), or reachability (predicted ticks to go, divided by `horizon` ticks)."""

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
            raise InputError(
                "metric: reachability needs a model with a learned distance; `jepa_ros train heads` adds one"
            )

    def distance(self, outcome: Outcome) -> torch.Tensor:
        """Return the mean square difference, for every metric. See Term."""
        return latent_distance(outcome.latents, self.goal)

    def cost(self, outcome: Outcome) -> torch.Tensor:
        if self.metric == "l1":
            return (outcome.latents - self.goal).abs().flatten(-self.goal.ndim).mean(-1)
        if self.metric == "l2" or self.reachability is None:
            return self.distance(outcome)
        shape = outcome.latents.shape[:2]
        latents, states = outcome.latents.flatten(0, 1).flatten(1), outcome.states.flatten(0, 1)
        ticks = self.reachability(latents, self.goal.flatten().expand(len(latents), -1), states)
        # Near the goal ticks are coarse: the latent distance, which is small there, orders the candidates.
        return (ticks / self.horizon).view(shape) + self.distance(outcome)


class _ScaledTerm:
    """A term whose cost is 1 at a distance of `scale`."""

    scale: ClassVar[float]

    def distance(self, outcome: Outcome) -> torch.Tensor:
        raise NotImplementedError

    def cost(self, outcome: Outcome) -> torch.Tensor:
        return (self.distance(outcome) / self.scale).square()


@dataclass(frozen=True)
class ToolTerm(_ScaledTerm):
    """A tool position (2,) or (3,) m in the coordinates of the motion space; its orientation, if any, is free."""

    scale: ClassVar[float] = POSITION_SCALE_M
    position: torch.Tensor
    tolerance: float = POSITION_TOLERANCE_M
    weight: float = 1.0
    unit: str = "m"

    def distance(self, outcome: Outcome) -> torch.Tensor:
        return (outcome.tool[..., : len(self.position)] - self.position).norm(dim=-1)


@dataclass(frozen=True)
class PostureTerm(_ScaledTerm):
    """Joint positions (J,) rad; columns: theirs (J,) in the proprioception, with mean and std (J,) rad.

    continuous: (J,) bool, joints whose distance is the shorter way round. None: no joint.
    """

    scale: ClassVar[float] = POSTURE_SCALE_RAD
    posture: torch.Tensor
    columns: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    tolerance: float = POSTURE_TOLERANCE_RAD
    weight: float = 1.0
    unit: str = "rad"
    continuous: torch.Tensor | None = None

    def distance(self, outcome: Outcome) -> torch.Tensor:
        """Return the root mean square over the joints. See Term."""
        q = outcome.states[..., self.columns] * self.std + self.mean
        error = q - self.posture
        if self.continuous is not None:
            error = error - TURN * torch.round(error / TURN) * self.continuous
        return error.square().mean(-1).sqrt()


@dataclass(frozen=True)
class ObjectTerm(_ScaledTerm):
    """An object's position (k,) m in the base frame, as a probe reads it from the latents."""

    scale: ClassVar[float] = POSITION_SCALE_M
    probe: Probe
    position: torch.Tensor
    tolerance: float
    weight: float = 1.0
    unit: str = "m"

    def distance(self, outcome: Outcome) -> torch.Tensor:
        return (self.probe.read(outcome.latents) - self.position).norm(dim=-1)


@dataclass(frozen=True)
class Goal:
    """A weighted sum of terms; the first one's distance is reported. Raises InputError for no term or a weight that is
    not positive."""

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise InputError("goal: no terms; expected at least one")
        for term in self.terms:
            if not 0.0 < term.weight < float("inf"):
                raise InputError(f"goal: expected finite positive weights, found {term.weight:g}")

    @property
    def latent(self) -> torch.Tensor | None:
        """The first term's latent (*L) that is one, for the policy; None if no term is a latent."""
        return next((term.goal for term in self.terms if isinstance(term, LatentTerm)), None)

    @property
    def needs_states(self) -> bool:
        """Whether the distance depends on joint states."""
        return not all(isinstance(term, (LatentTerm, ObjectTerm)) for term in self.terms)

    def cost(self, outcome: Outcome) -> torch.Tensor:
        """Return the cost (S, H)."""
        return sum(term.weight * term.cost(outcome) for term in self.terms)

    def distance(self, outcome: Outcome) -> torch.Tensor:
        """Return the first term's distance (S, H), in its unit."""
        return self.terms[0].distance(outcome)

    def within(self, outcome: Outcome) -> torch.Tensor:
        """Check whether every term is within its tolerance, (S, H)."""
        near = [term.distance(outcome) <= term.tolerance for term in self.terms]
        return torch.stack(near).all(0)


class GoalMaker:
    """Makes goal terms for one model on one robot.

    metric: of latents, see LatentTerm. guardrails: forbid tool positions. A tolerance of 0 or less stands for the
    default: the model's own for latents, twice the probe's error for objects, POSITION_TOLERANCE_M and
    POSTURE_TOLERANCE_RAD.
    """

    def __init__(
        self, checkpoint: Checkpoint, space: MotionSpace, metric: str = "l2", guardrails: Guardrails | None = None
    ):
        self._checkpoint, self._space, self._metric, self._guardrails = checkpoint, space, metric, guardrails
        if metric != "l2":  # an invalid metric fails here, not at the first goal
            self.latent(torch.zeros(checkpoint.config.latent_shape))

    def latent(self, goal: torch.Tensor, tolerance: float = 0.0, weight: float = 1.0) -> LatentTerm:
        """Return the term of a latent (*L)."""
        with torch.inference_mode(False):  # a tensor made in inference mode cannot take part in gradients
            goal = goal.to(self._checkpoint.device, copy=True)
        tolerance = tolerance if tolerance > 0 else self._checkpoint.config.distance.tolerance
        horizon = 5.0 * self._checkpoint.config.block
        return LatentTerm(goal, tolerance, weight, self._metric, self._checkpoint.reachability, horizon)

    def tool(self, position: np.ndarray, tolerance: float = 0.0, weight: float = 1.0) -> ToolTerm:
        """Return the term of a tool position (3,) m in the base frame.

        Raises InputError for a position off the motion plane, outside the workspace, or forbidden by the guardrails.
        """
        x = self._space.to_coordinates(_require_finite("pose", position, 3))
        if not self._space.is_inside(x):
            raise InputError(f"pose: {np.round(x, 3).tolist()} m lies outside the workspace")
        room = 0.0 if self._guardrails is None else float(self._guardrails.clearance(x))
        if room < 0.0:
            raise InputError(
                f"pose: {np.round(x, 3).tolist()} m is forbidden: {-room:.3f} m too near to a keep-out box, "
                "a joint limit or the robot itself"
            )
        tolerance = tolerance if tolerance > 0 else POSITION_TOLERANCE_M
        return ToolTerm(self._tensor(x), tolerance, weight)

    def posture(
        self, names: tuple[str, ...], positions: np.ndarray, tolerance: float = 0.0, weight: float = 1.0
    ) -> PostureTerm:
        """Return the term of joint positions (J,) rad by name. Raises InputError for joints unknown to the model."""
        config = self._checkpoint.config.proprioception
        if not names or (unknown := [n for n in names if n not in config.joints]):
            found = unknown if names else "none"
            raise InputError(f"joints: expected some of {list(config.joints)}, found {found}")
        values = self._tensor(_require_finite("joints", positions, len(names)))
        columns = [config.joints.index(n) for n in names]
        mean, std = (self._tensor(x)[columns] for x in (config.mean, config.std))
        tolerance = tolerance if tolerance > 0 else POSTURE_TOLERANCE_RAD
        continuous = torch.as_tensor(self._space.kinematics.find_continuous(names), device=values.device)
        return PostureTerm(values, torch.tensor(columns), mean, std, tolerance, weight, continuous=continuous)

    def object(self, name: str, position: np.ndarray, tolerance: float = 0.0, weight: float = 1.0) -> ObjectTerm:
        """Return the term of a position (3,) m in the base frame for the object that the probe `name` reads.

        Raises InputError if the model has no such probe.
        """
        readable = {name: probe for name, probe in self._checkpoint.probes.items() if name != JOINTS}
        probe = readable.get(name)
        if probe is None:
            known = f"it has probes for {', '.join(readable)}" if readable else "it has none"
            raise InputError(f"object '{name}': the model has no probe of that name ({known})")
        wanted = self._tensor(_require_finite(f"object '{name}'", position, 3)[: probe.dimension])
        return ObjectTerm(probe, wanted, tolerance if tolerance > 0 else 2.0 * probe.error, weight)

    def _tensor(self, values: Sequence[float] | np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self._checkpoint.device)


def _require_finite(name: str, values: np.ndarray, count: int) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise InputError(f"{name}: expected {count} finite numbers, found {values.tolist()}")
    return values


@dataclass(frozen=True)
class Objective:
    """Cost of candidates: the goal's cost over the horizon plus penalties.

    along: weight of the steps before the last, which weighs 1; at 0 the search is indifferent to when it arrives, and
    dawdles. effort: weight of the mean square action. smoothness: of the mean square change of an action from tick to
    tick. uncertainty: of the model's inconsistency per (10 cm)²: the distance between the tool position that
    `tool_probe` reads from the predicted latents and the planned one, beyond TOLERATED_DISAGREEMENT_M.
    """

    along: float = 0.3
    effort: float = 0.002
    smoothness: float = 0.0
    uncertainty: float = 0.0
    tool_probe: Probe | None = None

    def __call__(self, goal: Goal, outcome: Outcome, actions: torch.Tensor) -> torch.Tensor:
        """Return the costs (S,) of S candidates with this outcome and these actions (S, ticks, A)."""
        cost = goal.cost(outcome)
        weights = torch.full_like(cost[0], self.along)
        weights[-1] = 1.0
        total = cost @ weights + self.effort * actions.square().mean((1, 2))
        if self.smoothness:
            total = total + self.smoothness * actions.diff(dim=1).square().mean((1, 2))
        if self.uncertainty and self.tool_probe is not None:
            read = self.tool_probe.read(outcome.latents)[..., : outcome.tool.shape[-1]]
            excess = ((read - outcome.tool[..., : read.shape[-1]]).norm(dim=-1) - TOLERATED_DISAGREEMENT_M).clamp(
                min=0.0
            )
            total = total + self.uncertainty * (excess / 0.1).square().mean(1)
        return total

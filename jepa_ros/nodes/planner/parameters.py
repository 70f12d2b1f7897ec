"""Parameters of the planner node."""

from __future__ import annotations

from jepa_ros import planning
from jepa_ros.nodes.common.model_parameters import MODEL_PARAMETERS
from jepa_ros.nodes.common.parameters import Parameter

PARAMETERS = (
    *MODEL_PARAMETERS,
    Parameter("seed", 0, "Seed of the search's samples.", range=(0, 2**31 - 1), at_configure=True),
    Parameter(
        "deadline", 0.2, "From a frame's stamp to its plan at the gate; later counts as a miss.", "s", (0.02, 5.0)
    ),
    Parameter("period", 0.2, "Between two plans, at least; a plan starts from a new frame.", "s", (0.02, 5.0)),
    Parameter("budget", 0.05, "Time that one search may take.", "s", (0.005, 2.0), at_configure=True),
    Parameter(
        "lead",
        0.11,
        "From the start of a search to the moment its plan takes effect.",
        "s",
        (0.01, 3.0),
        at_configure=True,
    ),
    Parameter("horizon", 5, "Model steps that are imagined.", range=(1, 32), at_configure=True),
    Parameter(
        "solver",
        "icem",
        "Search algorithm: icem, cem (as published for LeWM), mppi, gradient, or shooting (random; the baseline).",
        choices=tuple(planning.SOLVERS),
        at_configure=True,
    ),
    Parameter(
        "policy",
        "policy_first",
        "Use of the fast policy: policy_seeded (its rollouts are among the search's first candidates), policy_first "
        "(searched further only if the model predicts a miss), policy_only (no search), none.",
        choices=planning.POLICY_MODES,
        at_configure=True,
    ),
    Parameter(
        "metric",
        "l2",
        "Latent distance that the search minimises: l2, l1, or reachability (learned; for models that have it).",
        choices=planning.METRICS,
        at_configure=True,
    ),
    Parameter(
        "precision",
        "float32",
        "Of the imagination's products; bfloat16 is sooner where the processor multiplies it (models of family lewm).",
        choices=("float32", "bfloat16"),
        at_configure=True,
    ),
    Parameter("smoothness", 0.0, "Price of actions that change.", range=(0.0, 100.0), at_configure=True),
    Parameter(
        "uncertainty",
        0.0,
        "Price of plans on which the model contradicts itself.",
        range=(0.0, 100.0),
        at_configure=True,
    ),
    Parameter("latent_timeout", 0.3, "No plan is made from a frame older than this.", "s", (0.02, 10.0)),
    Parameter(
        "resume_after",
        0.5,
        "After latents were missing or unusable, plans are made again once they have been usable for this long.",
        "s",
        (0.0, 60.0),
    ),
    Parameter(
        "goal_timeout", 30.0, "Goals that name no timeout of their own are aborted after this.", "s", (0.1, 3600.0)
    ),
    Parameter(
        "hold_timeout",
        10.0,
        "A goal during which the arm is held for this long without a break is aborted, and never goes on by itself.",
        "s",
        (0.1, 3600.0),
    ),
)

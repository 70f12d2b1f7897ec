"""Parameters of the planner node."""

from __future__ import annotations

from jepa_ros import planning
from jepa_ros.nodes.common.parameters import MODEL_PARAMETERS, Parameter

PARAMETERS = (
    *MODEL_PARAMETERS,
    Parameter("seed", 0, "Seed of the search's samples.", range=(0, 2**31 - 1), at_configure=True),
    Parameter(
        "deadline", 0.2, "Time from a frame's stamp to the publication of its plan; later is a miss.", "s", (0.02, 5.0)
    ),
    Parameter("period", 0.2, "Least time between two plans; each is made from a new frame.", "s", (0.02, 5.0)),
    Parameter("budget", 0.05, "Time limit of one search.", "s", (0.005, 2.0), at_configure=True),
    Parameter(
        "lead", 0.11, "Time from the start of a search to its plan's hand-over.", "s", (0.01, 3.0), at_configure=True
    ),
    Parameter("horizon", 5, "Rollout length in model steps.", range=(1, 32), at_configure=True),
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
        "Rollout matmul dtype; bfloat16 is faster on CPUs with native support (models of family lewm).",
        choices=("float32", "bfloat16"),
        at_configure=True,
    ),
    Parameter(
        "smoothness", 0.0, "Weight of the penalty on changes of the action.", range=(0.0, 100.0), at_configure=True
    ),
    Parameter("uncertainty", 0.0, "Weight of the model-inconsistency penalty.", range=(0.0, 100.0), at_configure=True),
    Parameter("latent_timeout", 0.3, "Oldest frame to plan from.", "s", (0.02, 10.0)),
    Parameter(
        "resume_after", 0.5, "Time for which latents must be valid again before planning resumes.", "s", (0.0, 60.0)
    ),
    Parameter("goal_timeout", 30.0, "Timeout of goals that set no timeout.", "s", (0.1, 3600.0)),
    Parameter(
        "hold_timeout",
        10.0,
        "A goal is aborted when the arm has been held for this long without interruption; it does not resume.",
        "s",
        (0.1, 3600.0),
    ),
)

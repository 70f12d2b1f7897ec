"""Planning in the latent space of a world model: goals, guardrails, searches and a receding-horizon controller.

Calls go controller (receding_horizon.py) -> planner (planner.py) -> one situation's problem (rollout_problem.py) and a
search (solver.py is its interface, solvers/ has one algorithm a file). Start reading in receding_horizon.py.

To add a search, write solvers/NAME.py and enter its class in SOLVERS: node parameters and commands offer what is here.
"""

SOLVERS = {"icem": "ICem", "cem": "Cem", "mppi": "Mppi", "gradient": "Gradient", "shooting": "Shooting"}
"""Search algorithms: name -> class in planning/solvers/NAME.py."""
POLICY_MODES = ("policy_seeded", "policy_first", "policy_only", "none")
"""What the fast policy is used for. policy_seeded: its rollouts are among the candidates that the search starts from.
policy_first: the same, but the search runs only if the model predicts that the best of them misses the goal.
policy_only: no search. none: search without the policy."""
METRICS = ("l2", "l1", "reachability")
"""Latent distances that the search can minimise: mean square, mean absolute, or the learned number of ticks to go."""

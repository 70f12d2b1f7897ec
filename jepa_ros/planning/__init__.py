"""Planning in latent space: solvers, objectives and the fast policy. Knows nothing of ROS."""

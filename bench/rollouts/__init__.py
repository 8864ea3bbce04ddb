"""How often the judge errs, and how soon it finds a candidate that is worse: simulated rollouts."""

"""Compares a task's candidate with its own workers during a rollout, and decides whether it
advances."""

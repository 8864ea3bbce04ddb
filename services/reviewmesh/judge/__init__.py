"""Judges a task's candidate while a rollout goes on, and decides whether it goes on."""

"""Offline work on packages: training, evaluation, and the commands of the registry.

It uses `reviewmesh_worker`; a serving image leaves it out.
"""

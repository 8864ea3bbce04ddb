"""Training, evaluation and the registry's commands: what is done with packages offline.

It uses `reviewmesh_worker`; a serving image leaves it out.
"""

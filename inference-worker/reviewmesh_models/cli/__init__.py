"""The command line `reviewmesh-models`; nothing imports it."""

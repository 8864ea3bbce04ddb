"""reviewmesh: the services of the mesh, its command line and its embedded stack."""

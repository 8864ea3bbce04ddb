"""What may leave the mesh, where to, and what of it is masked first. Pure."""

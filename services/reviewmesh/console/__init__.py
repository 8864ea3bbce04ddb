"""A page over the mesh: what it does now, one review's story, dead letters, and what it learned."""

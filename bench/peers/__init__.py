"""What the mesh is compared with: the same topology, built with what others would take for it.

They run in an environment of their own (requirements/bench.txt) and share the mesh's codecs and its
pure steps, so that what differs is how records are moved, called for and committed. What the mesh
promises beyond that, they do not do: no dedupe, no forwarding, no deadlines, no dead letters.
"""

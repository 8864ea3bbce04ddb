"""The Avro contracts of the mesh: one self-contained schema per record, and the topics."""

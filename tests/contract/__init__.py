"""The contracts hold: schemas, topics, protobuf."""

"""Avro: codecs of topics, the schema registry, limits on schemas and values of other writers."""

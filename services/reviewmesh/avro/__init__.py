"""Records as Avro: codecs bound to topics, the schema registry, limits on what strangers wrote."""

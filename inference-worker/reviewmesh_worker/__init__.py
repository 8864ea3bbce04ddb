"""The inference worker: engines that read a review, behind one gRPC service. Knows no Kafka."""

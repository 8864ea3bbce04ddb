"""Publishes a review for each id given, reads them enriched, prints each as JSON."""

import json
import sys

# docs: setup
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

registry = SchemaRegistryClient({"url": "http://127.0.0.1:8081/apis/ccompat/v7"})
raw = SerializationContext("reviews.raw", MessageField.VALUE)
enriched = SerializationContext("reviews.enriched", MessageField.VALUE)


def on_delivery(error: KafkaError | None, _message: Message) -> None:
    if error is not None:
        raise KafkaException(error)


# docs: end


def publish(ids: list[str]) -> None:
    # docs: publish
    schema = registry.get_latest_version("reviews.raw-value").schema.schema_str
    encode = AvroSerializer(registry, schema, conf={"auto.register.schemas": False})
    producer = Producer(
        {
            "bootstrap.servers": "127.0.0.1:9092",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # Java's; librdkafka's default is another
        }
    )
    for review_id in ids:
        review = {"review_id": review_id, "text": "Anna at the desk was great.", "stars": 5.0}
        value = encode(review, raw)
        producer.produce("reviews.raw", key=review_id, value=value, on_delivery=on_delivery)
    producer.flush()
    # docs: end


def read(ids: list[str]) -> dict[str, object]:
    latest: dict[str, object] = {}
    # docs: read
    decode = AvroDeserializer(registry)
    consumer = Consumer(
        {
            "bootstrap.servers": "127.0.0.1:9092",
            "group.id": "my-python-service",
            "isolation.level": "read_committed",  # librdkafka's default
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["reviews.enriched"])
    while not latest.keys() >= set(ids):
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        # An upsert: a later revision replaces.
        latest[(message.key() or b"").decode()] = decode(message.value(), enriched)
    consumer.close()
    # docs: end
    return latest


publish(sys.argv[1:])
for record in read(sys.argv[1:]).values():
    print(json.dumps(record, default=str))

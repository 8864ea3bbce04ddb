"""`python -m bench.peers.quix STAGE STATE_FOLDER`: the topology in Quix Streams, exactly-once.

A step is a function over one record, as its documentation has it, so what runs at once is the
number of replicas; a group has at most as many as there are partitions. The join is its `concat`
of the four topics with a stateful step.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
from quixstreams import Application, State, message_context
from quixstreams.models import Deserializer, SerializationContext, Serializer

from bench.peers import work
from reviewmesh.avro.codec import Codec
from reviewmesh.avro.contracts import Contracts
from reviewmesh.settings import Settings
from reviewmesh_protos.inference.v1 import inference_pb2_grpc
from reviewmesh_schemas import names

COMMIT_INTERVAL_S = 0.5


class AvroIn(Deserializer):
    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self._codec = codec

    def __call__(self, value: bytes, ctx: SerializationContext) -> dict[str, Any]:
        return self._codec.decode(value)


class AvroOut(Serializer):
    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self._codec = codec

    def __call__(self, value: dict[str, Any], ctx: SerializationContext) -> bytes:
        return self._codec.encode(value)


class Topology:
    def __init__(self, settings: Settings, stage: str, state_folder: str) -> None:
        self._contracts = Contracts(settings)
        self._prefix = settings.prefix
        self.app = Application(
            settings.kafka.bootstrap_servers,
            consumer_group=settings.prefix + stage,
            processing_guarantee="exactly-once",
            auto_offset_reset="earliest",
            commit_interval=COMMIT_INTERVAL_S,
            consumer_poll_timeout=0.1,
            state_dir=state_folder,
            loglevel="WARNING",
            auto_create_topics=True,
            consumer_extra_config={"fetch.wait.max.ms": 50, "fetch.queue.backoff.ms": 10},
            producer_extra_config={"linger.ms": 5, "compression.type": "lz4"},
        )

    def topic(self, name: str) -> Any:
        codec = self._contracts.codec(name)
        return self.app.topic(
            self._prefix + name,
            value_deserializer=AvroIn(codec),
            value_serializer=AvroOut(codec),
        )

    def intake(self) -> None:
        def accept(review: Any, key: Any, timestamp: int, headers: Any) -> Any:
            place = message_context()
            return work.accept(review, place.partition, place.offset, timestamp)

        frame = self.app.dataframe(self.topic(names.RAW))
        frame.apply(accept, metadata=True).to_topic(self.topic(names.ACCEPTED))

    def enricher(self, task: str) -> None:
        stub = inference_pb2_grpc.InferenceServiceStub(grpc.insecure_channel(work.worker_of(task)))

        def infer(accepted: Any) -> Any:
            place = message_context()
            answer = stub.Infer(work.request(task, accepted), timeout=work.CALL_TIMEOUT_S)
            return work.result(task, accepted, place.partition, place.offset, answer)

        frame = self.app.dataframe(self.topic(names.ACCEPTED))
        frame.apply(infer).to_topic(self.topic(names.RESULT_OF[task]))

    def joiner(self) -> None:
        def join(part: dict[str, Any], state: State) -> Any:
            ((name, record),) = part.items()
            parts = state.get("parts", {})
            parts[name] = record
            if len(parts) <= len(names.TASKS):
                state.set("parts", parts)
                return None
            state.delete("parts")
            accepted = parts.pop(names.ACCEPTED)
            return work.enriched(accepted, parts)

        frames = [
            self.app.dataframe(self.topic(topic)).apply(lambda record, name=name: {name: record})
            for name, topic in {names.ACCEPTED: names.ACCEPTED, **names.RESULT_OF}.items()
        ]
        together = frames[0]
        for frame in frames[1:]:
            together = together.concat(frame)
        joined = together.apply(join, stateful=True).filter(lambda record: record is not None)
        joined.to_topic(self.topic(names.ENRICHED))


if __name__ == "__main__":
    _, stage_name, folder = sys.argv
    topology = Topology(Settings(), stage_name, folder)
    if stage_name.startswith("enricher-"):
        topology.enricher(stage_name.removeprefix("enricher-"))
    else:
        {"intake": topology.intake, "joiner": topology.joiner}[stage_name]()
    topology.app.run()

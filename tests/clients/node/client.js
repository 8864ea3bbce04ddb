// Publishes a review for each id given, reads them enriched, prints each as JSON.
import { setTimeout } from "node:timers/promises";
// docs: setup
import { SchemaRegistry } from "@kafkajs/confluent-schema-registry";
import kafkajs from "kafkajs";
import { compressFrame, decompressFrame } from "lz4-napi";

const { CompressionCodecs, CompressionTypes, Kafka, Partitioners } = kafkajs;
// kafkajs brings no LZ4, which the mesh's records are compressed with.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => compressFrame(encoder.buffer),
  decompress: (buffer) => decompressFrame(buffer),
});
const registry = new SchemaRegistry({ host: "http://127.0.0.1:8081/apis/ccompat/v7" });
const kafka = new Kafka({ brokers: ["127.0.0.1:9092"] });
// docs: end

async function publish(ids) {
  // docs: publish
  const schemaId = await registry.getLatestSchemaId("reviews.raw-value");
  const producer = kafka.producer({
    idempotent: true,
    maxInFlightRequests: 1,
    createPartitioner: Partitioners.DefaultPartitioner, // Java's; LegacyPartitioner is not
  });
  await producer.connect();
  for (const id of ids) {
    const review = { review_id: id, text: "Anna at the desk was great.", stars: 5 };
    const value = await registry.encode(schemaId, review);
    await producer.send({ topic: "reviews.raw", messages: [{ key: id, value }] });
  }
  await producer.disconnect();
  // docs: end
}

async function read(ids) {
  const latest = new Map();
  // docs: read
  const consumer = kafka.consumer({
    groupId: "my-node-service",
    readUncommitted: false, // kafkajs' default
  });
  await consumer.connect();
  await consumer.subscribe({ topics: ["reviews.enriched"], fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => {
      const enriched = await registry.decode(message.value);
      latest.set(message.key.toString(), enriched); // an upsert: a later revision replaces
    },
  });
  // docs: end
  while (!ids.every((id) => latest.has(id))) await setTimeout(20);
  await consumer.disconnect();
  return latest;
}

const ids = process.argv.slice(2);
await publish(ids);
for (const enriched of (await read(ids)).values()) console.log(JSON.stringify(enriched));

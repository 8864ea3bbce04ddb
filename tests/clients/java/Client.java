import java.io.File;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Publishes a review for each id given, reads them enriched, prints each as JSON. */
public final class Client {
    public static void main(String[] args) throws Exception {
        List<String> ids = List.of(args);
        publish(ids);
        for (GenericRecord enriched : read(ids).values()) {
            System.out.println(enriched);
        }
    }

    private static void publish(List<String> ids) throws Exception {
        // docs: publish
        Properties config = new Properties();
        config.put("bootstrap.servers", "127.0.0.1:9092");
        config.put("apicurio.registry.url", "http://127.0.0.1:8081/apis/registry/v3");
        config.put("apicurio.registry.canonicalize", "true"); // finds our schema however it is written
        config.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        config.put("value.serializer", "io.apicurio.registry.serde.avro.AvroKafkaSerializer");
        Schema schema = new Schema.Parser().parse(new File("schemas/reviewmesh_schemas/review.avsc"));
        try (var producer = new KafkaProducer<String, GenericRecord>(config)) {
            for (String id : ids) {
                GenericRecord review = new GenericRecordBuilder(schema)
                    .set("review_id", id)
                    .set("text", "Anna at the desk was great.")
                    .set("stars", 5.0)
                    .build();
                producer.send(new ProducerRecord<>("reviews.raw", id, review)).get();
            }
        }
        // docs: end
    }

    private static Map<String, GenericRecord> read(List<String> ids) {
        // docs: read
        Properties config = new Properties();
        config.put("bootstrap.servers", "127.0.0.1:9092");
        config.put("group.id", "my-java-service");
        config.put("isolation.level", "read_committed"); // Java's default is read_uncommitted
        config.put("auto.offset.reset", "earliest");
        config.put("apicurio.registry.url", "http://127.0.0.1:8081/apis/registry/v3");
        config.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        config.put("value.deserializer", "io.apicurio.registry.serde.avro.AvroKafkaDeserializer");
        Map<String, GenericRecord> latest = new LinkedHashMap<>();
        try (var consumer = new KafkaConsumer<String, GenericRecord>(config)) {
            consumer.subscribe(List.of("reviews.enriched"));
            while (!latest.keySet().containsAll(ids)) {
                for (ConsumerRecord<String, GenericRecord> record : consumer.poll(Duration.ofSeconds(1))) {
                    latest.put(record.key(), record.value()); // an upsert: a later revision replaces
                }
            }
        }
        // docs: end
        return latest;
    }
}

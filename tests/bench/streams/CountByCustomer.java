import java.io.File;
import java.lang.management.ManagementFactory;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.Stores;

/**
 * Counts the events of each customer as Kafka Streams does it by itself: RocksDB, exactly_once_v2.
 * Arguments: bootstrap, topic, partitions, folder of the state, threads. Prints one line of JSON when the
 * committed offsets have reached the end of the topic: events, wall seconds and CPU seconds of this process
 * since the first event (the start of Java and of Streams, and the first assignment, are not counted).
 */
public final class CountByCustomer {
    private static final AtomicLong SEEN = new AtomicLong();
    private static volatile long startedNs, startedCpuNs;

    private static long cpuNs() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
            .getProcessCpuTime();
    }

    public static void main(String[] args) throws Exception {
        String bootstrap = args[0], topic = args[1];
        int partitions = Integer.parseInt(args[2]);
        Properties conf = new Properties();
        String application = "count-" + topic.replace('.', '-') + "-" + System.nanoTime();
        conf.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        conf.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        conf.put(StreamsConfig.STATE_DIR_CONFIG, new File(args[3]).getAbsolutePath());
        conf.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, args[4]);
        conf.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        conf.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "1");
        conf.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");

        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(topic, Consumed.with(Serdes.Bytes(), Serdes.ByteArray()))
            .peek((key, value) -> {
                if (SEEN.getAndIncrement() == 0) {
                    startedCpuNs = cpuNs();
                    startedNs = System.nanoTime();
                }
            })
            .groupByKey(Grouped.with(Serdes.Bytes(), Serdes.ByteArray()))
            .count(Materialized.<Bytes, Long>as(Stores.persistentKeyValueStore("counts"))
                .withKeySerde(Serdes.Bytes()).withValueSerde(Serdes.Long()));

        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
             KafkaStreams streams = new KafkaStreams(builder.build(), conf)) {
            Map<TopicPartition, OffsetSpec> wanted = new HashMap<>();
            for (int p = 0; p < partitions; p++) wanted.put(new TopicPartition(topic, p), OffsetSpec.latest());
            Map<TopicPartition, Long> ends = new HashMap<>();
            admin.listOffsets(wanted).all().get().forEach((at, found) -> ends.put(at, found.offset()));
            streams.start();
            while (!reached(ends, committed(admin, application))) {
                if (streams.state() == KafkaStreams.State.ERROR) throw new IllegalStateException("Streams failed");
                Thread.sleep(20);
            }
            double wall = (System.nanoTime() - startedNs) / 1e9, cpu = (cpuNs() - startedCpuNs) / 1e9;
            System.out.printf("{\"events\": %d, \"wall_s\": %.4f, \"cpu_s\": %.4f}%n", SEEN.get(), wall, cpu);
        }
    }

    private static Map<TopicPartition, OffsetAndMetadata> committed(Admin admin, String group) {
        try {
            return admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        } catch (Exception notYet) {  // the group is made by its first member
            return Map.of();
        }
    }

    private static boolean reached(Map<TopicPartition, Long> ends, Map<TopicPartition, OffsetAndMetadata> committed) {
        return ends.entrySet().stream().allMatch(end -> end.getValue() == 0
            || committed.get(end.getKey()) != null && committed.get(end.getKey()).offset() >= end.getValue());
    }
}

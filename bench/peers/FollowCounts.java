import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Keeps (following, followers) of each user in a store of Kafka Streams, exactly once, and prints how long that took as one line of JSON.
 *
 * Arguments: bootstrap servers, topic of the follows, application id, folder for the state, number of events. Each event becomes two
 * changes keyed by user, which go through a repartition topic; one thread folds them into a store with its changelog. A count is four bytes.
 * Timed from the first event in hand to the transaction that commits the last change.
 */
public class FollowCounts {
    static final ObjectReader CHANGE = new ObjectMapper().readerFor(Change.class);
    static final byte[] NONE = counts(0, 0);
    static volatile long startedNanos;
    static volatile long startedCpuNanos;
    static volatile long applied;
    static volatile Throwable failure;

    @JsonIgnoreProperties(ignoreUnknown = true)
    record Change(Follow before, Follow after) {}

    @JsonIgnoreProperties(ignoreUnknown = true)
    record Follow(@JsonProperty("follower_id") long follower, @JsonProperty("followee_id") long followee) {}

    public static void main(String[] arguments) throws Exception {
        long changes = 2 * Long.parseLong(arguments[4]);
        try (KafkaStreams streams = new KafkaStreams(topology(arguments[1]).build(), settings(arguments))) {
            streams.setUncaughtExceptionHandler(error -> {
                failure = error;
                return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
            });
            streams.start();
            while (applied < changes) {
                pause();
            }
            // the one thread that applies is also the one that commits: its next commit holds the last change
            double commits = commits(streams);
            while (commits(streams) == commits) {
                pause();
            }
            report();
        }
    }

    static Properties settings(String[] arguments) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[2]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[3]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        return settings;
    }

    static StreamsBuilder topology(String topic) {
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(topic, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
            .flatMap((key, value) -> changes(value))
            .groupByKey(Grouped.with("by-user", Serdes.Long(), Serdes.ByteArray()))
            .aggregate(() -> NONE, (user, change, counts) -> added(counts, change),
                Materialized.<Long, byte[], KeyValueStore<Bytes, byte[]>>as("counts")
                    .withKeySerde(Serdes.Long()).withValueSerde(Serdes.ByteArray()));
        return builder;
    }

    static List<KeyValue<Long, byte[]>> changes(byte[] value) {
        if (startedNanos == 0) {
            startedCpuNanos = cpuNanos();
            startedNanos = System.nanoTime();
        }
        List<KeyValue<Long, byte[]>> changes = new ArrayList<>(4);
        try {
            Change change = CHANGE.readValue(value);
            add(changes, change.before(), -1);
            add(changes, change.after(), 1);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return changes;
    }

    static void add(List<KeyValue<Long, byte[]>> changes, Follow follow, int step) {
        if (follow != null) {
            changes.add(KeyValue.pair(follow.follower(), counts(step, 0)));
            changes.add(KeyValue.pair(follow.followee(), counts(0, step)));
        }
    }

    static byte[] added(byte[] counts, byte[] change) {
        ByteBuffer before = ByteBuffer.wrap(counts);
        ByteBuffer step = ByteBuffer.wrap(change);
        byte[] after = counts(before.getInt(0) + step.getInt(0), before.getInt(4) + step.getInt(4));
        applied = applied + 1;
        return after;
    }

    static byte[] counts(int following, int followers) {
        return ByteBuffer.allocate(8).putInt(following).putInt(followers).array();
    }

    static double commits(KafkaStreams streams) {
        return streams.metrics().values().stream()
            .filter(metric -> metric.metricName().name().equals("commit-total"))
            .filter(metric -> metric.metricName().group().equals("stream-thread-metrics"))
            .mapToDouble(metric -> ((Number) metric.metricValue()).doubleValue()).sum();
    }

    static void pause() throws InterruptedException {
        if (failure != null) {
            throw new IllegalStateException(failure);
        }
        Thread.sleep(2);
    }

    static long cpuNanos() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    static void report() throws IOException {
        double seconds = (System.nanoTime() - startedNanos) / 1e9;
        double cpuSeconds = (cpuNanos() - startedCpuNanos) / 1e9;
        String peak = Files.readAllLines(Path.of("/proc/self/status")).stream()
            .filter(line -> line.startsWith("VmHWM")).findFirst().orElseThrow().replaceAll("\\D", "");
        System.out.printf("{\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"peak_mb\": %d}%n", seconds, cpuSeconds, Long.parseLong(peak) / 1024);
    }
}

"""librdkafka's mock broker in a process of its own, to be paused and killed like the others; restarted, it is empty and elsewhere."""

import signal
import sys
from pathlib import Path

from confluent_kafka import Producer


def main(address_file: str) -> None:
    """Write host:port into `address_file` once the broker listens, then wait for a signal to end."""
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "-"})
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    written = Path(address_file + ".new")
    written.write_text(f"{broker.host}:{broker.port}")
    written.rename(address_file)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])

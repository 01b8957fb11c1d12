"""Transactions that Kafka has forgotten and never ended: found and aborted by its own tool, as its operators do.

A broker that is killed may leave one: its coordinator has ended the transaction, and a record came after that. Whoever reads only what is
committed waits there for good; Kafka Connect, whose offsets are in such a topic, then never starts again.
"""

from pathlib import Path

from demo.servers import maven
from demo.servers.kafka import java_17, java_options
from demo.servers.process import run

TOOL = "org.apache.kafka.tools.TransactionsCommand"
MINUTES = 1


async def abort_forgotten(bootstrap: str, cache: Path, temporary: Path) -> list[str]:
    """Those that have been open for more than a minute, as topic:partition@offset. Raises ServerError where Kafka is away."""
    java = (await java_17(), "-Xmx64m", *java_options(await maven.jars(cache, print), temporary), TOOL, "--bootstrap-server", bootstrap)
    found = await run(*java, "find-hanging", "--broker-id", "1", "--max-transaction-timeout", str(MINUTES))
    aborted = []
    for line in found.splitlines():
        topic, partition, _, _, _, offset, *_ = (*line.split(), *[""] * 6)
        if partition.isdigit() and offset.isdigit():
            await run(*java, "abort", "--topic", topic, "--partition", partition, "--start-offset", offset)
            aborted.append(f"{topic}:{partition}@{offset}")
    return aborted

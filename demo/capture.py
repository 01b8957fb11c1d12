"""Change data capture of a view's tables: what they are called in Kafka, and the connector that publishes them. Starts no server."""

from demo.servers import debezium
from demo.servers.debezium import SCHEMA, Connector
from demo.servers.process import ServerError
from schema.definition import Definition

# of the demo: Debezium's `topic.prefix`, and the name of connector and slot
NAME = "app"


def topic_prefix(name: str) -> str:
    """What VIEWGATE_TOPIC_PREFIX must be for a connector of this name: a table's topic is `<name>.public.<table>`."""
    return f"{name}.{SCHEMA}."


def connector(name: str, address: str, definition: Definition) -> Connector:
    """One for all tables of the definition, whose prefix must be `topic_prefix(name)`. Raises ServerError where a topic has another name.

    Tables and topics are called alike, so that no transformation has to rename what Debezium sends.
    """
    for topic, row in definition.topics.items():
        if topic != f"{topic_prefix(name)}{row.source.table}":
            raise ServerError(
                f"table {row.source.table} would be published to {topic_prefix(name)}{row.source.table}, and the view reads {topic}: "
                f"call topic and table of {row.__name__} alike, and let VIEWGATE_TOPIC_PREFIX be {topic_prefix(name)}"
            )
    return debezium.connector(name, address, [row.source.table for row in definition.rows], name)

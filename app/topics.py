"""Names our own topic, makes topics where they are missing, asks how one is kept. What a refusal means is decided by who asked."""

from collections.abc import Mapping
from types import MappingProxyType

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from app.settings import Settings
from projectors.reading import SourceChanged
from schema.definition import Definition

# of Kafka, if a broker tells nothing
TOMBSTONES_KEPT_MS = 86_400_000
log = structlog.stdlib.get_logger()


def dead_letters(settings: Settings, definition: Definition) -> str:
    """The topic of what is no change, of one view."""
    return f"{settings.topic_prefix}{definition.name.lower()}.dead-letters"


async def make_topics(
    admin: AIOKafkaAdminClient, topics: Mapping[str, int], replicas: int, config: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Topic → partitions; replicas: as many, or as there are brokers. What was refused, a sentence each. Raises KafkaError, ValueError.

    A mock broker has no controller and cannot make topics; there asking for one makes it.
    """
    cluster = await admin.describe_cluster()
    brokers = {broker["node_id"] for broker in cluster["brokers"]}
    if cluster["controller_id"] not in brokers:
        return []
    # aiokafka cannot ask for the brokers' own default of replicas
    copies = min(replicas, len(brokers))
    answer = await admin.create_topics(
        [NewTopic(name, partitions, copies, topic_configs=dict(config)) for name, partitions in topics.items()]
    )
    return [
        f"topic {topic} cannot be created: {for_code(code).__name__} {message}"
        for topic, code, *message in answer.topic_errors
        if code not in {0, TopicAlreadyExistsError.errno}
    ]


async def tombstones_kept_ms(admin: AIOKafkaAdminClient, topic: str) -> int:
    """How long Kafka keeps a tombstone of a compacted topic. Raises SourceChanged where it loses rows by retention."""
    try:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    except (NotImplementedError, ValueError, KafkaError) as error:
        log.warning("topic_not_described", topic=topic, error=repr(error))
        return TOMBSTONES_KEPT_MS
    config = {entry[0]: entry[1] for answer in answers for _, _, _, _, entries in answer.resources for entry in entries}
    if "delete" in str(config.get("cleanup.policy")) and (config.get("retention.ms"), config.get("retention.bytes")) != ("-1", "-1"):
        raise SourceChanged(
            f"topic {topic} loses rows by retention (cleanup.policy={config['cleanup.policy']}), which nobody has deleted. "
            f"Run `kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config cleanup.policy=compact`."
        )
    return int(config.get("delete.retention.ms") or TOMBSTONES_KEPT_MS)

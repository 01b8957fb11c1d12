"""Names our own topic, and makes topics where they are missing. What a refusal means is decided by who asked for them."""

from collections.abc import Mapping
from types import MappingProxyType

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from app.settings import Settings
from schema.definition import Definition


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

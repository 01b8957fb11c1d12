"""Makes topics in Kafka where they are missing. Says nothing and stops nothing: who asked for them decides what a refusal means."""

from collections.abc import Mapping
from types import MappingProxyType

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code


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

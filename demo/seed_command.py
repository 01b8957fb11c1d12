"""`viewgate seed`: publishes the users of the demo to the Kafka of the settings. What they are stands in seed.py."""

from typing import Annotated

import typer
import uvloop
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException

from app.cli import CommandError
from app.console import console
from app.settings import Settings, read_settings
from app.telemetry import set_up_logs
from app.views import definition_of
from demo import seed as seeds
from demo.publish import Publisher, publish_all, unpublished
from demo.servers.kafka import create_topics
from demo.servers.process import ServerError
from demo.sink import end_offsets
from schema.definition import Definition
from schema.user import Follows, Likes, Tweets, Users

PARTITIONS = 6
ROWS = {Users, Tweets, Follows, Likes}
FOREVER = {"retention.ms": "-1"}


def seed(
    users: Annotated[int, typer.Option(help="How many; what they did comes in proportion: 24 rows for each.", min=1)] = seeds.FULL.users,
    partitions: Annotated[int, typer.Option(help="Of each topic that is not there yet.", min=1)] = PARTITIONS,
    replicas: Annotated[int, typer.Option(help="Of each topic that is not there yet.", min=1)] = 1,
    if_empty: Annotated[bool, typer.Option("--if-empty", help="Do nothing, and succeed, where the topics hold records already.")] = False,
) -> None:
    """Publish users, tweets, follows and likes to Kafka, as their services would. Topics that are missing are made.

    Topics that hold records are refused: the same rows published again would be counted again.

    \b
    Examples:
      viewgate seed --users 5000
      VIEWGATE_TOPIC_PREFIX=try. viewgate seed
    """
    settings = read_settings()
    set_up_logs("critical")
    definition = users_of(settings)
    try:
        held = uvloop.run(_held(settings, definition, partitions, replicas))
    except KafkaError as error:
        raise unreachable(settings, error) from error
    except ServerError as refused:
        raise CommandError(f"{refused}. Make the topics yourself, or choose other --partitions and --replicas.") from refused
    if held and if_empty:
        typer.echo(f"The topics hold {held:,} records already: nothing published.")
        return
    if held:
        raise CommandError(f"The topics hold {held:,} records already; set VIEWGATE_TOPIC_PREFIX to seed others, or empty these first.")
    size = seeds.sized(users)
    publisher = Publisher(settings.kafka_bootstrap, settings.topic_prefix)
    try:
        uvloop.run(publish_all(publisher, seeds.records(size), size.rows, console(stderr=True)))
    except KafkaException as error:
        raise CommandError(f"Not everything arrived: {error}. Seed other topics, by VIEWGATE_TOPIC_PREFIX.") from error
    typer.echo(f"{size.rows:,} changes published to {', '.join(sorted(definition.topics))}.")


def users_of(settings: Settings) -> Definition:
    """The definition, if it is one that the demo's users fit. Raises CommandError."""
    definition = definition_of(settings)
    if set(definition.rows) != ROWS:
        raise CommandError(f"Only users can be seeded, and VIEWGATE_VIEW is {settings.view}: unset it, or publish rows of your own.")
    if reason := unpublished(definition):
        raise CommandError(reason)
    return definition


def unreachable(settings: Settings, error: Exception) -> CommandError:
    """What to say where Kafka does not answer."""
    return CommandError(
        f"Kafka at {settings.kafka_bootstrap} cannot be reached ({error}): start it, or set VIEWGATE_KAFKA_BOOTSTRAP; see viewgate doctor."
    )


async def _held(settings: Settings, definition: Definition, partitions: int, replicas: int) -> int:
    """Make the topics that are missing; how many records all of them hold."""
    await create_topics(settings.kafka_bootstrap, dict.fromkeys(definition.topics, partitions), FOREVER, replicas)
    return sum((await end_offsets(settings.kafka_bootstrap, definition.topics)).values())

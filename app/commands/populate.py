"""`viewgate populate`: keeps a second Redis from the view topic alone, in one process, until it is told to end."""

import uvloop
from aiokafka.errors import KafkaError

from app.cli import CommandError
from app.feeds import collect_less
from app.populating import populate_view
from app.settings import SettingsError, read_settings
from app.stopping import told_to_stop, within
from app.telemetry import set_up_logs
from app.views import definition_of
from projectors.apply import EvictionAllowed
from projectors.generations import GenerationRefused
from projectors.reading import SourceChanged
from projectors.view_topic import UnreadableTopic

# each stops it with a sentence that says what a person has to do; of KafkaErrors only those that trying again does not mend
STOPS = (EvictionAllowed, GenerationRefused, KafkaError, SourceChanged, UnreadableTopic)


def populate() -> None:
    """Keep a second Redis from the topic VIEWGATE_VIEW_TOPIC, which `viewgate project` publishes, until SIGTERM or Ctrl-C.

    VIEWGATE_REDIS_URL is the second Redis. Gateways and every other command read it as they read the first.

    \b
    Examples:
      viewgate populate
      VIEWGATE_VIEW_TOPIC=user.view VIEWGATE_REDIS_URL=redis://other:6379/0 viewgate populate
    """
    settings = read_settings()
    if not settings.view_topic:
        raise SettingsError("VIEWGATE_VIEW_TOPIC: is not set: name the topic that `viewgate project` publishes with the same setting.")
    set_up_logs(settings.log_level)
    collect_less()

    async def run() -> None:
        stop = told_to_stop()
        await within(stop, populate_view(settings, definition_of(settings), stop))

    try:
        uvloop.run(run())
    except STOPS as error:
        raise CommandError(f"`viewgate populate` has stopped: {error}") from error

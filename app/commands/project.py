"""`viewgate project`: a projector, in one process, until it is told to end."""

import uvloop
from aiokafka.errors import KafkaError
from prometheus_client import start_http_server

from app.cli import CommandError
from app.feeds import TopicsMissing, collect_less
from app.settings import Settings, read_settings
from app.stopping import told_to_stop
from app.telemetry import ProjectorMetrics, set_up_logs
from app.views import definition_of
from app.worker import work
from projectors.apply import EvictionAllowed, ShardFailed
from projectors.generations import GenerationRefused, ShardLost
from projectors.log import RetentionPassed
from projectors.reading import SourceChanged

# each stops the projector with a sentence that says what a person has to do; of KafkaErrors only those that trying again does not mend
STOPS = (EvictionAllowed, GenerationRefused, KafkaError, RetentionPassed, ShardFailed, ShardLost, SourceChanged, TopicsMissing)


def project() -> None:
    """Keep the view up to date from Kafka, exactly once, until SIGTERM or Ctrl-C. Several processes share the partitions.

    \b
    Examples:
      viewgate project
      VIEWGATE_PROJECTOR_METRICS_PORT=9100 viewgate project
    """
    settings = read_settings()
    set_up_logs(settings.log_level)
    collect_less()
    metrics = ProjectorMetrics()
    if settings.projector_metrics_port:
        start_http_server(settings.projector_metrics_port, addr=settings.host, registry=metrics.registry)
    try:
        uvloop.run(_until_told(settings, metrics))
    except STOPS as error:
        raise CommandError(f"The projector has stopped: {error}") from error


async def _until_told(settings: Settings, metrics: ProjectorMetrics) -> None:
    await work(settings, definition_of(settings), metrics, told_to_stop())

"""`viewgate invalidate`: keeps the cache of mode cache-invalidate clean, in one process, until it is told to end."""

import uvloop
from aiokafka.errors import KafkaError
from prometheus_client import start_http_server

from app.cli import CommandError
from app.invalidating import invalidate as run
from app.settings import Settings, read_settings
from app.stopping import told_to_stop
from app.telemetry import InvalidatorMetrics, set_up_logs
from app.views import definition_of
from projectors.log import RetentionPassed


def invalidate() -> None:
    """Delete from the cache what changes in Kafka have made stale, until SIGTERM or Ctrl-C: for mode cache-invalidate.

    Several processes share the partitions. Where it does not run, that mode answers with what is stale until its time is up.

    \b
    Examples:
      viewgate invalidate
      VIEWGATE_PROJECTOR_METRICS_PORT=9101 viewgate invalidate
    """
    settings = read_settings()
    set_up_logs(settings.log_level)
    metrics = InvalidatorMetrics()
    if settings.projector_metrics_port:
        start_http_server(settings.projector_metrics_port, addr=settings.host, registry=metrics.registry)
    try:
        uvloop.run(_until_told(settings, metrics))
    except (KafkaError, RetentionPassed) as error:
        raise CommandError(f"The invalidator has stopped: {error}") from error


async def _until_told(settings: Settings, metrics: InvalidatorMetrics) -> None:
    await run(settings, definition_of(settings), metrics, told_to_stop())

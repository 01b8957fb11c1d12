"""`python -m tests.torture.sink`: the sink of those rows of the view that are written once."""

import asyncio

from app.settings import read_settings
from app.stopping import told_to_stop
from app.telemetry import set_up_logs
from app.views import definition_of
from demo.sink import sink
from tests.torture.view import written_once


async def _main() -> None:
    settings = read_settings()
    set_up_logs(settings.log_level)
    await sink(written_once(definition_of(settings)), settings.kafka_bootstrap, settings.postgres_url, told_to_stop())


if __name__ == "__main__":
    asyncio.run(_main())

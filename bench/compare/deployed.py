"""A deployment that runs already, asked in each mode by the header viewgate-mode. Nothing of it is started, emptied, hurt or measured
from within: only what its readers see is told."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from bench.compare.residence import Residence, Writes, pages
from bench.compare.scenario import Scenario
from demo.servers.process import ServerError
from schema.loader import MODES, Mode

HEADER = "viewgate-mode"
COUNTS = "query ($ids: [ID!]!) { users(ids: $ids) { id tweetCount } }"


@dataclass(slots=True)
class Deployed:
    """writes: where changes of the scenario go; None: nobody writes. base: each user's tweets before."""

    scenario: Scenario
    host: str
    port: int
    writes: Writes | None
    base: dict[int, int] = field(default_factory=dict)

    @asynccontextmanager
    async def residence(self, mode: Mode, *, warm: bool = True) -> AsyncIterator[Residence]:
        """warm: every user is read once."""
        running = Residence(mode, self.host, self.port, {HEADER: mode})
        if warm:
            await running.read_all(self.scenario.users)
        yield running

    @asynccontextmanager
    async def all_modes(self) -> AsyncIterator[Sequence[Residence]]:
        """Abreast, to be compared."""
        yield [Residence(mode, self.host, self.port, {HEADER: mode}) for mode in MODES]


@asynccontextmanager
async def deployed(scenario: Scenario, url: str, writes: Writes | None) -> AsyncIterator[Deployed]:
    """Raises ServerError where there is no gateway whose modes may be chosen, or it has not as many users as the scenario."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise ServerError(f"--url {url} is no http://host:port of a gateway: TLS would be measured with it.")
    made = Deployed(scenario, parts.hostname, parts.port or 80, writes)
    running = Residence("sql", made.host, made.port, {HEADER: "sql"})
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            for ids in pages(scenario.users):
                told = await running.ask(client, ids, COUNTS)
                if "errors" in told or None in told["data"]["users"]:
                    raise ServerError(f"{url} does not answer users 1 to {scenario.users:,} in mode sql: {str(told)[:200]}. {WANTED}")
                made.base |= {int(user["id"]): user["tweetCount"] for user in told["data"]["users"]}
    except (httpx.HTTPError, ValueError) as error:
        raise ServerError(f"There is no gateway at {url} ({error}). {WANTED}") from error
    yield made


WANTED = "It needs VIEWGATE_ALLOW_MODE_HEADER=true and users of the demo's view with ids from 1 to the scenario's `users`."

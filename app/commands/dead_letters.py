"""`viewgate dead-letters`: what was no change, listed, shown, counted; and, once the decoders are mended, brought into the view."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

import asyncpg
import typer
import uvloop
from aiokafka.errors import KafkaError
from redis.exceptions import ResponseError
from rich.progress import Progress

from app.auditing import Audited
from app.cli import CommandError
from app.clients import open_clients
from app.commands.audit import Against
from app.console import console
from app.letters import Opened, kept, open_letters, replay
from app.letters_shown import SHOWN, show_counts, show_letter, show_list, tell_outcome, tell_ready
from app.settings import Settings, read_settings
from app.telemetry import set_up_logs
from app.views import definition_of
from loaders.sql import AWAY
from projectors.apply import StoreUnavailable
from projectors.letters import Letter, Wanted

dead_letters = typer.Typer(
    name="dead-letters",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""Records that were no change of their table: list, show and count them, and replay them once they decode.

    \b
    Examples:
      viewgate dead-letters list
      viewgate dead-letters replay --dry-run
    """,
)
Topic = Annotated[str | None, typer.Option(help="Only of this topic, such as likes; with or without the prefix.")]
Reason = Annotated[str | None, typer.Option(help="Only those whose reason has this text in it.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON list.")]


@dead_letters.command("list")
def list_(
    limit: Annotated[int, typer.Option(help="So many at most.", min=1)] = SHOWN,
    topic: Topic = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the one that was buried last first; a record that was buried several times is one.

    State: dead, decodes now, replayed, or cut (too large to be kept whole: a replay reads it where it lay).

    \b
    Examples:
      viewgate dead-letters list
      viewgate dead-letters list --topic likes --limit 100
      viewgate dead-letters list --reason 'got `null`' --json
    """

    async def run(opened: Opened) -> None:
        found = _chosen(opened, (), topic, reason)
        show_list(found[::-1][:limit], as_json=as_json)
        if len(found) > limit and not as_json:
            typer.echo(f"{len(found) - limit:,} more: --limit shows them.")

    _run(run)


@dead_letters.command()
def show(position: Annotated[str, typer.Argument(help="As `list` tells it: topic:partition:offset.")]) -> None:
    """Show a dead letter: headers, key and value as text, why it was buried, and what the decoders of today say.

    \b
    Example:
      viewgate dead-letters show likes:0:42
    """

    async def run(opened: Opened) -> None:
        found = _chosen(opened, [position], None, None)
        for letter, whole in zip(found, await opened.whole(found), strict=True):
            show_letter(letter, whole, await opened.record(letter))

    _run(run)


@dead_letters.command()
def count(topic: Topic = None, reason: Reason = None, as_json: AsJson = False) -> None:
    """Count dead letters by topic, reason and state, the most first.

    \b
    Examples:
      viewgate dead-letters count
      viewgate dead-letters count --topic likes --json
    """

    async def run(opened: Opened) -> None:
        counted = Counter((letter.topic, letter.state, letter.sort) for letter in _chosen(opened, (), topic, reason))
        show_counts(counted.most_common(), as_json=as_json)

    _run(run)


@dead_letters.command("replay")
def replay_(
    positions: Annotated[list[str] | None, typer.Argument(help="As `list` tells them; without any, all.")] = None,
    topic: Topic = None,
    reason: Reason = None,
    against: Annotated[
        Against | None, typer.Option(help="What says what is right; without it the log, or SQL for a generation that came from SQL.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which decode now, and which rows they touch.")] = False,
) -> None:
    """Bring dead letters that decode now into every generation that is kept, while projectors write on. Exits with 1 if some could not.

    Start the mended `viewgate project` first. Each row that they touch is put right by the log, at exactly the watermarks that it has:
    may be broken off, and done again, and counts nothing twice. docs/dead-letters.md says why, and what it cannot do.

    \b
    Examples:
      viewgate dead-letters replay --dry-run
      viewgate dead-letters replay
      viewgate dead-letters replay likes:0:42 likes:3:7
      viewgate dead-letters replay --topic likes --reason 'got `null`'
    """

    async def run(opened: Opened) -> None:
        letters = await opened.whole(_chosen(opened, positions or (), topic, reason))
        ready = [letter for letter in letters if letter.decodes]
        tell_ready(letters, ready, dry_run=dry_run)
        if ready and not dry_run:
            await _replay(opened, ready, against)

    _run(run)


async def _replay(opened: Opened, ready: Sequence[Letter], against: Against | None) -> None:
    settings, definition = opened.settings, opened.definition
    out = console(stderr=True)
    async with open_clients(settings) as clients:
        records = await kept(clients, definition)
        if not records:
            raise CommandError(
                f"No generation of this definition ({definition.fingerprint}) is kept, so there is nothing to bring them into: "
                "`viewgate rebuild` builds one, which reads these records by itself."
            )
        outcomes = []
        with Progress(console=out, disable=not out.is_terminal) as progress:
            for record in records:
                bar = progress.add_task(f"Reading the log for {record.name}", total=None)
                found = Audited(settings, definition, clients, record, named=True)
                by_sql = record.origin == "sql" if against is None else against is Against.SQL
                outcomes.append(await replay(found, ready, partial(progress.advance, bar), by_sql=by_sql))
    for outcome in outcomes:
        tell_outcome(outcome, definition.name)
    late = {letter.position for outcome in outcomes for letter in outcome.share.late}
    troubled = [outcome for outcome in outcomes if outcome.trouble]
    if not troubled:
        await opened.mark([letter for letter in ready if letter.position not in late], [record.name for record in records])
    if troubled or late:
        raise CommandError("Not all could be brought in, for the reasons above. What was brought in stays, and a replay may be done again.")


def _chosen(opened: Opened, positions: Sequence[str], topic: str | None, reason: str | None) -> list[Letter]:
    """Raises CommandError for a position where no letter's record lay."""
    missing = set(positions) - {letter.position for letter in opened.letters}
    if missing:
        told = ", ".join(sorted(missing))
        raise CommandError(f"No dead letter's record lay at {told}: `viewgate dead-letters list` tells where they lay.")
    wanted = Wanted(positions, _topic(opened, topic), reason)
    return [letter for letter in opened.letters if wanted.has(letter)]


def _topic(opened: Opened, topic: str | None) -> str | None:
    """With its prefix."""
    prefix = opened.settings.topic_prefix
    known = {letter.topic for letter in opened.letters}
    return prefix + topic if topic is not None and topic not in known and prefix + topic in known else topic


def _run(what: Callable[[Opened], Awaitable[None]]) -> None:
    settings = read_settings()
    set_up_logs("error" if settings.log_level == "info" else settings.log_level)

    async def run() -> None:
        async with _tried(settings), open_letters(settings, definition_of(settings)) as opened:
            await what(opened)

    uvloop.run(run())


@asynccontextmanager
async def _tried(settings: Settings) -> AsyncIterator[None]:
    """What may go wrong, as the sentence of a command."""
    try:
        yield
    except KafkaError as away:
        raise CommandError(f"Kafka at {settings.kafka_bootstrap} cannot be asked ({away!r}): see `viewgate doctor`.") from away
    except (StoreUnavailable, ResponseError) as away:
        raise CommandError(f"It could not be finished: {away} Do it again; `viewgate doctor` says what is wrong.") from away
    except (*AWAY, asyncpg.PostgresError) as away:
        raise CommandError(f"PostgreSQL cannot be asked ({away!r}): see VIEWGATE_POSTGRES_URL.") from away

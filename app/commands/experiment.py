"""`viewgate experiment`: what is on trial, and what has come of it; and the switch, which every gateway follows within about a second."""

import os
import pwd
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
import uvloop

from app.cli import CommandError
from app.clients import open_clients
from app.experiment import NONE, BadExperiment, By, Experiment, Shadow, check, decode, weights
from app.experiment_shown import State, show, to_json
from app.experiment_store import ExperimentStore
from app.server import loaders
from app.settings import Settings, read_settings
from app.settled import settled
from app.telemetry import GatewayMetrics, set_up_logs
from app.views import definition_of
from projectors.apply import StoreUnavailable, reached
from schema.loader import Mode

LINES = 5
MISMATCHES = 10
Who = Annotated[str | None, typer.Option("--who", help="Who switches it, for the log; without it the user of this machine.")]

experiment = typer.Typer(
    name="experiment",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True, slots=True)
class Opened:
    """What the commands work with. modes: that a gateway of these settings has."""

    settings: Settings
    store: ExperimentStore
    modes: Sequence[Mode]


@experiment.callback()
def state(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    mismatches: Annotated[int, typer.Option(help="So many of the newest differences.", min=0, max=100)] = MISMATCHES,
) -> None:
    """Show what is on trial and what has come of it; start, change or stop it without a restart of any gateway.

    Values of rows are shown as they differed: they are your users' data.

    \b
    Examples:
      viewgate experiment
      viewgate experiment --json
      viewgate experiment start cheap --weights view=90,cache-aside=10
      viewgate experiment stop
    """
    if context.invoked_subcommand is not None:
        return

    async def run(opened: Opened) -> None:
        found = await _state(opened)
        if as_json:
            typer.echo(to_json(found, mismatches))
        else:
            show(found, mismatches)

    _run(run)


@experiment.command()
def start(
    name: Annotated[str, typer.Argument(help="Such as cheap-cache; subjects are dealt out anew for each name.")],
    split: Annotated[str, typer.Option("--weights", help="Such as view=50,cache-aside=50; without it all stay in VIEWGATE_MODE.")] = "",
    by: Annotated[By, typer.Option(help="What is given one mode for good.")] = "client",
    shadow: Annotated[Mode | None, typer.Option(help="The candidate, which answers a share of requests again, unseen.")] = None,
    share: Annotated[float, typer.Option(help="Of requests, for the shadow and the control.", min=0, max=1)] = 0.01,
    control: Annotated[bool, typer.Option("--control", help="First ask the mode again that has answered: the noise.")] = False,
    who: Who = None,
) -> None:
    """Start an experiment, or change the one that runs. Weights, shadow or control: one at least. Counts begin at 0 each time.

    \b
    Examples:
      viewgate experiment start cheap --weights view=50,cache-aside=50 --by id
      viewgate experiment start trust --shadow sql --share 0.05 --control
    """

    async def run(opened: Opened) -> None:
        settings = opened.settings
        try:
            compared = Shadow(share, shadow, control) if shadow or control else None
            made = Experiment(name, weights(split), by, compared, time.time_ns() // 1_000_000, _who(who))
            check(made, opened.modes, settings.mode)
        except BadExperiment as bad:
            raise CommandError(f"Experiment {name} cannot be run: {bad}. Nothing was changed.") from bad
        await reached(opened.store.switch(made, "started", made.whom))
        typer.echo(f"{name} is on trial: gateways take it up within about a second, and `viewgate experiment` shows what comes of it.")

    _run(run)


@experiment.command()
def stop(who: Who = None) -> None:
    """Stop what is on trial, also what the settings name: every request is answered as VIEWGATE_MODE says. What was counted stays.

    \b
    Example:
      viewgate experiment stop
    """

    async def run(opened: Opened) -> None:
        await reached(opened.store.switch(NONE, "stopped", _who(who)))
        typer.echo("Nothing is on trial, within about a second.")

    _run(run)


@experiment.command()
def reset(who: Who = None) -> None:
    """Forget what was started or stopped by command: each gateway does again what its own settings say.

    \b
    Example:
      viewgate experiment reset
    """

    async def run(opened: Opened) -> None:
        await reached(opened.store.switch(None, "reset", _who(who)))
        typer.echo("The settings say what is on trial, within about a second.")

    _run(run)


async def _state(opened: Opened) -> State:
    store = opened.store
    stored = await reached(store.read())
    wrong, found = None, None
    try:
        found = settled(opened.settings, opened.modes) if stored is None else decode(stored)
        if found is not None and found != NONE:
            check(found, opened.modes, opened.settings.mode)
    except BadExperiment as bad:
        # gateways go on with what they had
        wrong, found = str(bad), None
    log = await reached(store.log(LINES))
    if found == NONE:
        # what it came to before it was stopped is still of interest
        found = next((line.experiment for line in log if line.experiment and line.experiment != NONE), None)
        return State("stopped", found, await reached(store.counted(found)) if found else None, log)
    return State("settings" if stored is None else "key", found, await reached(store.counted(found)) if found else None, log, wrong)


def _who(given: str | None) -> str:
    if given:
        return given[:200]
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = f"user {number}"
    return f"{name}@{socket.gethostname()}"


def _run(what: Callable[[Opened], Awaitable[None]]) -> None:
    settings = read_settings()
    set_up_logs("error" if settings.log_level == "info" else settings.log_level)
    definition = definition_of(settings)

    async def run() -> None:
        async with open_clients(settings) as clients:
            modes = tuple(loaders(settings, definition, clients, GatewayMetrics()))
            try:
                await what(Opened(settings, ExperimentStore(clients.redis, definition.name), modes))
            except StoreUnavailable as away:
                raise CommandError(f"{away} See VIEWGATE_REDIS_URL, and `viewgate doctor`.") from away

    uvloop.run(run())

"""The experiment that the settings name, for gateways whose Redis has none. Asks nobody."""

from collections.abc import Collection

from app.experiment import BadExperiment, Experiment, Shadow, check, weights
from app.settings import Settings, SettingsError, key_of
from schema.loader import Mode


def settled(settings: Settings, modes: Collection[Mode]) -> Experiment | None:
    """None: they name none. modes: that the gateway has. Raises SettingsError."""
    name, split, candidate = settings.experiment, settings.experiment_weights, settings.shadow_mode
    if not name:
        if split or candidate:
            raise SettingsError(f"{key_of('experiment')}: what is on trial has no name, and has weights or a shadow: give it one.")
        return None
    shadow = None if candidate is None else Shadow(settings.shadow_share, candidate)
    experiment = Experiment(name, weights(split), settings.experiment_by, shadow)
    try:
        check(experiment, modes, settings.mode)
    except BadExperiment as bad:
        raise SettingsError(f"{key_of('experiment')}: experiment {name} cannot be run: {bad}.") from bad
    return experiment

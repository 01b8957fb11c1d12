"""`viewgate settings`, and what every command says of a variable that is no setting."""

import json
from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, given, hidden, misspelt, read_settings
from tests.commands.running import run


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def test_every_setting_is_shown_with_its_value_and_where_it_comes_from() -> None:
    code, out, err = await run("settings", VIEWGATE_MODE="sql")
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert (code, err) == (0, "")
    assert set(lines) == {f"VIEWGATE_{name.upper()}" for name in Settings.model_fields}
    assert lines["VIEWGATE_MODE"][:2] == ["sql", "environment"]
    assert lines["VIEWGATE_PORT"][:2] == ["8000", "default"]
    assert "\x1b" not in out


async def test_passwords_are_hidden_in_both_forms() -> None:
    secrets = {
        "VIEWGATE_POSTGRES_URL": "postgresql://reader:hush@db/app",
        "VIEWGATE_REDIS_URL": "rediss://:hush@cache:6379/0",
        "VIEWGATE_CACHE_REDIS_URL": "redis://u:hu@sh@cache:6379/0?password=hush@er",
    }
    _, table, _ = await run("settings", **secrets)
    _, text, _ = await run("settings", "--json", **secrets)
    assert "hush" not in table + text
    assert "hu@sh" not in table + text
    assert "er" not in json.loads(text)["VIEWGATE_CACHE_REDIS_URL"]["value"].removeprefix("redis")
    assert json.loads(text)["VIEWGATE_POSTGRES_URL"] == {"value": "postgresql://reader:…@db/app", "from": "environment"}


def test_where_a_setting_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("VIEWGATE_MODE=sql\nVIEWGATE_PORT=8001\nVIEWGATE_HOST=\n")
    monkeypatch.setenv("VIEWGATE_PORT", "8002")
    assert given() == {"mode": ".env", "port": "environment"}


async def test_a_misspelt_variable_is_told_by_every_command_and_stops_none() -> None:
    sentence = "VIEWGATE_REDIS_ULR is no setting; did you mean VIEWGATE_REDIS_URL?\n"
    for command in ("settings", "schema"):
        code, _, err = await run(command, VIEWGATE_REDIS_ULR="redis://elsewhere")
        assert (code, err) == (0, sentence)


def test_a_misspelt_variable_of_the_file_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("VIEWGATE_COLOUR=red\nOTHER=x\n")
    monkeypatch.setenv("VIEWGATE_REDIS_URL", "redis://127.0.0.1")
    assert misspelt() == ["VIEWGATE_COLOUR is no setting; `viewgate settings` lists them all."]


def test_what_kubernetes_sets_for_a_service_is_not_taken_for_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8000_TCP", "PORT_8000_TCP_ADDR", "GATEWAY_SERVICE_HOST"):
        monkeypatch.setenv(f"VIEWGATE_{name}", "10.0.0.1")
    assert misspelt() == []
    monkeypatch.setenv("VIEWGATE_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(SettingsError, match=r"^VIEWGATE_PORT: Kubernetes has set it .* enableServiceLinks"):
        read_settings()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:6379/0", "postgresql://reader@db/app", "unix:///run/redis.sock"])
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert hidden(url) == url


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("UserView", "it must be module:name"),
        ("nowhere:UserView", "No module named 'nowhere'"),
        ("schema.user:Nobody", "has no attribute 'Nobody'"),
        ("schema.user:Users", "a view is a dataclass"),
    ],
)
async def test_a_view_that_cannot_be_read_is_exit_code_2(view: str, message: str) -> None:
    code, out, err = await run("schema", VIEWGATE_VIEW=view)
    assert (code, out) == (2, "")
    assert err.startswith("VIEWGATE_VIEW: ")
    assert message in err

"""Settings and logs: what is read from where, and what is said of a mistake."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import pytest
import structlog
from redis.asyncio.connection import SSLConnection

from app.audit_metrics import AuditMetrics
from app.cluster.url import parse_cluster_url
from app.experiment_metrics import ExperimentMetrics
from app.settings import Settings, SettingsError, read_settings
from app.telemetry import GatewayMetrics, InvalidatorMetrics, ProjectorMetrics, set_up_logs

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _logs_as_before() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def test_the_environment_wins_over_the_file_and_nothing_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().mode == "view"
    (tmp_path / ".env").write_text("VIEWGATE_MODE=sql\nVIEWGATE_PORT=8001\nOTHER=x\n")
    monkeypatch.setenv("VIEWGATE_PORT", "8002")
    assert (read_settings().mode, read_settings().port) == ("sql", 8002)


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIEWGATE_CACHE_REDIS_URL", "")
    assert read_settings().cache_redis_url is None


def test_a_url_of_a_cluster_names_several_nodes_and_one_way_to_log_in() -> None:
    nodes, options = parse_cluster_url("redis+cluster://me:se%40cret@one:7001,10.0.0.2,[::1]:7003?max_connections=4")
    assert nodes == [("one", 7001), ("10.0.0.2", 6379), ("::1", 7003)]
    assert options == {"username": "me", "password": "se@cret", "max_connections": 4}
    assert parse_cluster_url("rediss+cluster://one")[1]["connection_class"] is SSLConnection


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("VIEWGATE_MODE", "fast"),
        ("VIEWGATE_PORT", "http"),
        ("VIEWGATE_PORT", "70000"),
        ("VIEWGATE_REDIS_URL", "localhost:6379"),
        ("VIEWGATE_REDIS_URL", "redis://:secret@host:port"),
        ("VIEWGATE_CACHE_REDIS_URL", "http://x"),
        ("VIEWGATE_REDIS_URL", "redis+cluster://one:6379/1"),
        ("VIEWGATE_REDIS_URL", "redis+cluster://one:6379,"),
        ("VIEWGATE_REDIS_URL", "redis+cluster://"),
        ("VIEWGATE_REDIS_URL", "redis+cluster://:secret@one:port"),
        ("VIEWGATE_POSTGRES_URL", "mysql://x"),
        ("VIEWGATE_FALLBACK_LIMIT", "0"),
        ("VIEWGATE_ALLOW_MODE_HEADER", "perhaps"),
        ("VIEWGATE_WRITES_URL", "127.0.0.1:8001"),
        ("VIEWGATE_WRITES_URL", "http://127.0.0.1:8001/follows"),
        ("VIEWGATE_WRITES_URL", "http://one; script-src *"),
    ],
)
def test_a_malformed_setting_is_named_and_its_value_is_not_told(monkeypatch: pytest.MonkeyPatch, key: str, value: str) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(SettingsError, match=f"^{key}: ") as raised:
        read_settings()
    # it may hold a password
    assert "\n" not in str(raised.value)
    assert value == "http" or value not in str(raised.value)


def test_no_setting_can_be_changed_later() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_settings().mode = "sql"


def test_every_setting_and_every_metric_has_a_line_in_the_docs() -> None:
    text = "".join(path.read_text() for path in DOCS.glob("*.md"))
    settings = [f"| `VIEWGATE_{name.upper()}` |" for name in Settings.model_fields]
    gateway = GatewayMetrics()
    ExperimentMetrics(gateway.registry)
    everything = (gateway, ProjectorMetrics(), InvalidatorMetrics(), AuditMetrics())
    metrics = [f"| `{_exposed(metric)}` |" for kept in everything for metric in kept.registry.collect()]
    assert len(metrics) == 23
    assert [line for line in settings + metrics if line not in text] == []


def test_every_setting_is_described() -> None:
    assert [name for name, setting in Settings.model_fields.items() if not setting.description] == []


@pytest.mark.usefixtures("_logs_as_before")
def test_logs_are_json_objects_with_the_stack_trace_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info")
    log = structlog.stdlib.get_logger()
    log.debug("hidden")
    log.info("applied", lag_messages=3)
    logging.getLogger("uvicorn.error").warning("from %s", "elsewhere")
    log.error("internal_error", id="ab", exc_info=KeyError("why"))
    out, err = capsys.readouterr()
    first, second, third = map(json.loads, err.splitlines())
    assert out == ""
    assert (first["event"], first["lag_messages"], first["level"]) == ("applied", 3, "info")
    assert (second["event"], second["level"]) == ("from elsewhere", "warning")
    assert "KeyError: 'why'" in third["exception"]


def _exposed(metric: prometheus_client.Metric) -> str:
    return metric.name + ("_total" if metric.type == "counter" else "")

"""compose.yaml, Dockerfile and dev container, as far as they can be held without a container engine."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement

from app.cli import Commands, program
from app.settings import Settings, key_of, read_settings
from demo.servers import kafka, maven, postgres, process
from demo.servers import redis as redis_server

HOUSE = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((HOUSE / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = re.sub(r"\\\n\s*", "", (HOUSE / "Dockerfile").read_text())
PROJECT = tomllib.loads((HOUSE / "pyproject.toml").read_text())
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
SERVERS = sorted(set(SERVICES) - set(OURS))
LOCK = re.compile(r"^([A-Za-z0-9._-]+)==\S+ .*?--hash=sha256:[0-9a-f]{64}", re.MULTILINE | re.DOTALL)
# of Kafka's settings, what says where the broker is and where its data lie
PLACES = {"controller.quorum.voters", "listeners", "advertised.listeners", "log.dirs"}


def _instructions(name: str) -> list[str]:
    return re.findall(rf"^(?:HEALTHCHECK .*?)?{name} (.*)$", DOCKERFILE, re.MULTILINE)


def _json(name: str) -> list[str]:
    """The last instruction of that name, which is a list of words."""
    words: list[str] = json.loads(_instructions(name)[-1])
    return words


def _call(service: dict[str, Any]) -> list[str]:
    """Entry point and command: the image's, where the service has none. An entry point of its own forgets the image's command."""
    own = service.get("entrypoint")
    return [*(own or _json("ENTRYPOINT")), *service.get("command", [] if own else _json("CMD"))]


def _picked(awk: str) -> dict[str, str]:
    """What an awk of the Dockerfile takes out of requirements/dev.txt: package → its entry."""
    found = subprocess.run(("awk", awk, "requirements/dev.txt"), cwd=HOUSE, capture_output=True, text=True, check=True).stdout
    return {entry.partition("==")[0]: entry for entry in found.replace("\\\n", " ").splitlines() if not entry.lstrip().startswith("#")}


def _let_in(path: str) -> bool:
    """Whether .dockerignore lets this file into the build: its last rule that matches says so."""
    rules = [rule for rule in (HOUSE / ".dockerignore").read_text().splitlines() if rule and not rule.startswith("#")]
    parts, kept = path.split("/"), True
    for rule in rules:
        pattern = rule.removeprefix("!").rstrip("/")
        above = parts if pattern.startswith("**/") else ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        if any(fnmatch(part, pattern.removeprefix("**/")) for part in above):
            kept = rule.startswith("!")
    return kept


def _packed() -> dict[str, str]:
    """Every file that a wheel must have: where it lies in the house → where in the wheel."""
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    places = {package: package for package in wheel["packages"]} | wheel.get("force-include", {})
    packed = {}
    for here, there in places.items():
        for path in [HOUSE / here, *(HOUSE / here).rglob("*")]:
            if path.is_file() and "__pycache__" not in path.parts:
                packed[str(path.relative_to(HOUSE))] = there + str(path.relative_to(HOUSE)).removeprefix(here)
    return packed


def _importable_with(distributions: set[str], modules: list[str]) -> str:
    """What stops these modules from being imported where no other distributions are installed; empty if nothing does."""
    script = """
import importlib, sys
from importlib.metadata import packages_distributions
allowed, modules = set(sys.argv[1].split(",")) | {"viewgate"}, sys.argv[2].split(",")
owners = {name: {d.lower().replace("_", "-") for d in ds} for name, ds in packages_distributions().items()}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if "." not in name and owners.get(name, allowed).isdisjoint(allowed):
            raise ModuleNotFoundError(f"{name} is not in the image")
sys.meta_path.insert(0, Refuse())
for module in modules:
    importlib.import_module(module)
"""
    call = (sys.executable, "-c", script, ",".join(distributions), ",".join(modules))
    ended = subprocess.run(call, cwd=HOUSE, capture_output=True, text=True, check=False)
    return ended.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_runs_a_command_that_exists_with_options_that_it_has(name: str) -> None:
    words = _call(SERVICES[name])
    if words[:2] == ["python", "-m"]:
        assert (HOUSE / f"{words[2].replace('.', '/')}.py").is_file()
        return
    group = typer.main.get_command(program())
    assert isinstance(group, Commands)
    assert words[0] == "viewgate"
    command = group.get_command(None, words[1])
    assert command is not None
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words[2:] if word.startswith("--")} <= options


@pytest.mark.parametrize("name", OURS)
def test_what_a_service_of_ours_is_told_are_settings_that_can_be_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = SERVICES[name]["environment"]
    assert set(told) <= {key_of(setting) for setting in Settings.model_fields}
    for key, value in told.items():
        monkeypatch.setenv(key, str(value))
    settings = read_settings()
    assert settings.kafka_bootstrap == "kafka:9092"
    named = {settings.redis_url.split("/")[2], settings.postgres_url.split("@")[1].split("/")[0]}
    assert {address.partition(":")[0] for address in named} <= set(SERVERS)


def test_kafka_has_the_settings_of_the_demo() -> None:
    told = {key: str(value) for key, value in SERVICES["kafka"]["environment"].items() if key != "KAFKA_HEAP_OPTS"}
    properties = {key.removeprefix("KAFKA_").lower().replace("_", "."): value for key, value in told.items()}
    demo = dict(line.split("=", 1) for line in kafka.PROPERTIES.splitlines() if not line.startswith("#"))
    assert set(properties) == set(demo)
    assert {key: value for key, value in properties.items() if key not in PLACES} == {k: v for k, v in demo.items() if k not in PLACES}
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{maven.kafka_version()}"
    assert [f"kafka:{properties['log.dirs']}"] == SERVICES["kafka"]["volumes"]


def test_redis_and_postgresql_have_the_settings_of_the_demo() -> None:
    redis = SERVICES["redis"]
    version = redis["image"].split(":")[1].split("-")[0]
    assert redis["command"] == ["redis-server", *redis_server.SETTINGS, *redis_server._packing(f"v={version}")]
    elsewhere = ("listen_addresses=", "unix_socket_directories=")
    expected = [setting for setting in postgres.SETTINGS if not setting.startswith(elsewhere)]
    assert SERVICES["postgres"]["command"] == ["postgres", *(word for setting in expected for word in ("-c", setting))]


def test_only_the_gateway_is_reached_from_outside_and_only_from_this_machine() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "gateway": ["127.0.0.1:${PORT:-8000}:8000"]
    }
    assert [name for name, service in SERVICES.items() if service["networks"] != ["inside"]] == ["gateway"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only", False) is (name != "kafka")
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_can_tell_that_it_is_ready(name: str) -> None:
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        if wanted["condition"] == "service_healthy":
            assert "test" in SERVICES[other]["healthcheck"]
        else:
            assert SERVICES[other]["restart"].startswith("on-failure")


def test_what_a_server_keeps_is_in_a_volume_that_is_declared() -> None:
    kept = {name: service["volumes"][0].partition(":")[0] for name, service in SERVICES.items() if "volumes" in service}
    assert kept == {name: name for name in SERVERS}
    assert set(COMPOSE["volumes"]) == set(SERVERS)


def test_every_image_is_pinned_by_version() -> None:
    arguments = dict(word.split("=", 1) for word in _instructions("ARG"))
    bases = [re.sub(r"\$\{(\w+)\}", lambda name: arguments[name[1]], base).split()[0] for base in _instructions("FROM")]
    stages = {base.split(" AS ")[1] for base in _instructions("FROM")}
    images = {base for base in bases if base not in stages} | {SERVICES[name]["image"] for name in SERVERS}
    assert len(images) == 4
    assert [image for image in images if not re.search(r":\d+(\.\d+){1,2}(-\w+)*$", image)] == []
    assert {SERVICES[name]["build"]["target"] for name in OURS} == {"viewgate", "demo"} < stages


def test_the_image_does_not_run_as_root() -> None:
    (user,) = _instructions("USER")
    assert int(user.split(":")[0]) > 0


def test_the_image_is_built_from_the_lock_and_from_nothing_else() -> None:
    build, demo = (_picked(awk) for awk in re.findall(r"awk '(.*?)' requirements/dev\.txt", DOCKERFILE))
    wanted = [Requirement(line) for line in requires("hatchling") or []]
    assert set(build) == {"hatchling", *(one.name for one in wanted if one.marker is None or one.marker.evaluate())}
    assert set(demo) == {"confluent-kafka"}
    assert [entry for entry in [*build.values(), *demo.values()] if not LOCK.match(entry)] == []
    installs = re.findall(r"pip install [^&\n]*", DOCKERFILE)
    assert [call for call in installs if "--require-hashes" not in call and "--no-deps" not in call] == []


def test_the_images_have_what_their_commands_import() -> None:
    run = set(LOCK.findall((HOUSE / "requirements" / "run.txt").read_text().lower()))
    entries = PROJECT["project"]["entry-points"]["viewgate.commands"].values()
    modules = [entry.partition(":")[0] for entry in entries]
    ours = [module for module in modules if module.startswith("app.")]
    assert "app.commands.serve" in ours
    assert _importable_with(run, ours) == ""
    publishing = ["demo.sink", *(module for module in modules if module in {"demo.seed_command", "demo.traffic"})]
    assert _importable_with(run | {"confluent-kafka"}, publishing) == ""
    assert "confluent_kafka is not in the image" in _importable_with(run, publishing)


def test_the_wheel_has_every_file_of_every_package(tmp_path: Path) -> None:
    packed = _packed()
    for name in filter(_let_in, [*packed, "pyproject.toml", "README.md", "LICENSE"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((HOUSE / name).read_bytes())
    build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist"))
    subprocess.run(build, cwd=tmp_path, capture_output=True, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert set(packed.values()) - set(archive.namelist()) == set()
    assert {"projectors/apply.lua", "app/server.py"} <= set(packed)


def test_nothing_private_goes_into_the_build() -> None:
    private = [".env", ".git/config", ".venv/bin/python", ".cache/demo/redis/dump.rdb", "app/__pycache__/cli.cpython-311.pyc"]
    assert [path for path in private if _let_in(path)] == []


async def test_the_health_check_of_the_image_tells_a_gateway_that_lives_from_none(tmp_path: Path) -> None:
    port = f"VIEWGATE_PORT={process.free_port()}"
    check = json.loads(_instructions("CMD")[0])[1:]

    async def lives() -> None:
        try:
            await process.run("env", port, sys.executable, *check)
        except process.ServerError as failed:
            raise process.NotReadyError(str(failed)) from failed

    with pytest.raises(process.NotReadyError, match="refused"):
        await lives()
    argv = ("env", port, sys.executable, "-m", "app", "serve")
    gateway = process.Process(process.Command("gateway", argv, tmp_path / "log", lives))
    try:
        await gateway.start()
    finally:
        await gateway.stop()


def test_a_dev_container_sets_up_what_make_does() -> None:
    container = json.loads((HOUSE / ".devcontainer" / "devcontainer.json").read_text())
    assert container["forwardPorts"] == [8000]
    assert "tools/system-packages" in container["postCreateCommand"]
    assert "make .venv/ready" in container["postCreateCommand"]
    assert re.search(r":\d+\.\d+", container["image"])

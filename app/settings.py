"""The settings, and the only place that reads the environment. docs/settings.md says more of each."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.asyncio.connection import parse_url

from app.cluster.url import names_cluster, parse_cluster_url
from app.experiment import By, weights
from schema import limits
from schema.loader import Mode

PREFIX = "VIEWGATE_"
FILE = ".env"
# what Kubernetes sets in each pod for a Service whose name begins with viewgate
SERVICE_LINK = re.compile(PREFIX + r"(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
ORIGIN = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?", re.ASCII)


class SettingsError(Exception):
    """A setting is malformed; the message names its key, a line for each."""


class Settings(BaseSettings):
    """From the environment, then from `.env`, then as written here. Frozen. Made by `read_settings`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=FILE, env_ignore_empty=True, frozen=True, extra="ignore")

    view: str = Field(default="schema.user:UserView", description="The view definition, as module:class; also from the current folder.")
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="The Redis of the view: redis://, rediss:// or unix://; a Redis Cluster: redis+cluster:// or rediss+cluster://.",
    )
    redis_connections: int = Field(default=32, ge=1, description="Most connections to each Redis that a process opens.")
    redis_timeout_seconds: float = Field(
        default=1.0, gt=0, description="How long to wait for Redis: to connect, to answer, to have a free connection."
    )
    postgres_url: str = Field(
        default="postgresql://127.0.0.1:5432/viewgate", description="The source database: for all modes but view, rebuild, audit."
    )
    postgres_connections: int = Field(default=10, ge=1, description="Most connections to PostgreSQL that a process opens.")
    postgres_timeout_seconds: float = Field(
        default=5.0, gt=0, description="How long PostgreSQL may take to connect, or to answer one query."
    )
    kafka_bootstrap: str = Field(default="127.0.0.1:9092", description="Kafka brokers, host:port, separated by commas.")
    topic_prefix: str = Field(default="", description="What every topic's name begins with, such as Debezium's `topic.prefix` and a dot.")
    view_topic: str = Field(default="", description="The topic that `project` publishes the view to, and `populate` reads; empty: none.")
    consumer_group: str = Field(default="viewgate", min_length=1, description="The projector's consumer group.")
    mode: Mode = Field(default="view", description="How requests are answered: view, cache-aside, cache-invalidate or sql.")
    allow_mode_header: bool = Field(default=False, description="Whether a request may choose its mode by the header viewgate-mode.")
    experiment: str = Field(
        default="", description="The name of what is on trial where `viewgate experiment` has switched nothing; empty: none."
    )
    experiment_weights: str = Field(
        default="", description="How an experiment splits traffic, such as view=50,cache-aside=50; empty: all of it stays in VIEWGATE_MODE."
    )
    experiment_by: By = Field(default="client", description="What is given one mode for good: client, or id, the first row asked for.")
    shadow_mode: Mode | None = Field(
        default=None, description="An experiment's candidate: it answers a share of requests once more, unseen."
    )
    shadow_share: float = Field(default=0.01, gt=0, le=1, description="The share of requests that the candidate answers too.")
    pages: bool = Field(default=True, description="Whether a browser gets pages: /, /compare, the docs, and GraphiQL at /graphql.")
    writes_url: str = Field(
        default="",
        description="The origin of a service that writes follows, such as the demo's, for the button of /compare; empty: no button.",
    )
    fallback: Literal["none", "cache-aside", "sql"] = Field(default="none", description="The mode that answers when the view cannot.")
    fallback_limit: int = Field(default=8, ge=1, description="How many requests the fallback may answer at once.")
    fallback_wait_seconds: float = Field(default=0.5, ge=0, description="How long a request waits for its turn at the fallback.")
    sql_wait_seconds: float = Field(
        default=1.0, gt=0, description="How long a request waits for a connection to PostgreSQL before it is told to come again."
    )
    cache_redis_url: str | None = Field(default=None, description="The Redis of the modes with a cache; the view's if not set.")
    cache_ttl_seconds: float = Field(default=60.0, ge=1, description="How long cache-aside keeps a row, give or take a tenth.")
    cache_invalidate_ttl_seconds: float = Field(
        default=3600.0, ge=1, description="The same of cache-invalidate, for what `viewgate invalidate` may have missed."
    )
    cache_unknown_seconds: float = Field(default=5.0, gt=0, description="How long a cache keeps that there is no such row.")
    cache_early: float = Field(
        default=1.0, ge=0, description="How much sooner than its end a row is asked for again, times what it took to read; 0: never."
    )
    cache_stale_while_revalidate_seconds: float = Field(
        default=10.0, ge=0, description="How long after its end a row is still answered with, while it is asked for."
    )
    cache_stale_if_error_seconds: float = Field(
        default=300.0, ge=0, description="How long after its end a row is still answered with, where PostgreSQL cannot be asked."
    )
    cache_lease_seconds: float = Field(default=2.0, gt=0, description="After how long another process may refill what one has begun to.")
    after_wait_seconds: float = Field(
        default=1.0, ge=0, le=60, description="How long a request with the header viewgate-after waits for the view to have its write."
    )
    host: str = Field(default="127.0.0.1", description="The address that `serve` listens at.")
    port: int = Field(default=8000, ge=0, le=65535, description="The port that `serve` listens at; 0: any free one.")
    limit_tokens: int = Field(default=limits.MOST_TOKENS, ge=1, description="Most tokens and comments of a GraphQL document.")
    limit_depth: int = Field(default=15, ge=1, description="How many fields deep an operation may be; the introspection query takes 15.")
    limit_aliases: int = Field(
        default=30, ge=0, description="Most aliases of an operation, those of its fragments wherever they are spread."
    )
    limit_root_fields: int = Field(default=20, ge=1, description="Most fields of Query that an operation may ask for.")
    limit_directives: int = Field(default=50, ge=0, description="Most directives, such as @skip, of an operation.")
    limit_selections: int = Field(
        default=1_000, ge=1, description="Most fields and fragments of a document, a fragment's wherever it is spread."
    )
    limit_ids: int = Field(default=limits.LONGEST_LIST, ge=1, description="Longest list of ids.")
    limit_rows: int = Field(default=limits.MOST_ROWS, ge=1, description="Most rows that a request may read, repeated ones included.")
    limit_body_bytes: int = Field(
        default=16_384, ge=1, description="Most bytes of a request's body, or of its URL's parameters; any such body costs little time."
    )
    limit_batch: int = Field(default=0, ge=0, description="Most operations in a request that is a JSON array; 0: no arrays.")
    request_timeout_seconds: float = Field(default=10.0, gt=0, description="How long a request to /graphql may take, its body included.")
    rate_limit: float = Field(
        default=0, ge=0, description="Requests and rows that a client, by its address, may ask of a process in a second; 0: any."
    )
    csrf: bool = Field(default=True, description="Whether a GET is refused that a page of another site could have sent.")
    cors_origins: str = Field(
        default="", description="Sites whose pages may ask, separated by commas, such as https://app.example; *: all; empty: none."
    )
    cache_control: str = Field(default="no-cache", description="What Cache-Control tells of an answer to GET that has no errors.")
    draft_status_codes: bool = Field(
        default=False, description="Whether answers of application/graphql-response+json have the status codes of the 2026 draft: 294, 422."
    )
    persisted_queries: int = Field(
        default=1_000, ge=0, description="How many documents are kept that clients have sent with their hash (Apollo's protocol); 0: none."
    )
    trusted_documents: str = Field(
        default="", description="A file of documents by their ids, made by graphql-codegen, Relay or Apollo; their plans are made at start."
    )
    only_trusted_documents: bool = Field(default=False, description="Whether all but the trusted documents are refused.")
    introspection: bool = Field(default=True, description="Whether clients may ask what the schema is; GraphiQL and code generators do.")
    suggestions: bool = Field(default=False, description="Whether errors guess what was meant: Did you mean 'username'?")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged: this and worse.")
    projector_metrics_port: int = Field(
        default=0, ge=0, le=65535, description="The port of /metrics of `project` and of `invalidate`; 0: none."
    )
    checkpoint_seconds: float = Field(default=5.0, gt=0, description="How often the projector advances the watermarks of idle shards.")

    @property
    def limits(self) -> limits.Limits:
        """What a GraphQL request may ask."""
        given = {
            name: getattr(self, f"limit_{name}")
            for name in ("tokens", "depth", "aliases", "root_fields", "directives", "selections", "ids", "rows")
        }
        return limits.Limits(**given, introspection=self.introspection, suggestions=self.suggestions)

    @field_validator("port", mode="before")
    @classmethod
    def _port(cls, port: object) -> object:
        if isinstance(port, str) and port.startswith("tcp://"):
            raise ValueError(
                "Kubernetes has set it for a Service named viewgate; set it to a port, or enableServiceLinks: false in the pod"
            )
        return port

    @field_validator("redis_url", "cache_redis_url")
    @classmethod
    def _redis(cls, url: str | None) -> str | None:
        if url is not None and names_cluster(url):
            parse_cluster_url(url)
        elif url is not None:
            parse_url(url)
        return url

    @field_validator("writes_url")
    @classmethod
    def _origin(cls, url: str) -> str:
        # it becomes a part of a header
        if url and not ORIGIN.fullmatch(url):
            raise ValueError("must be http:// or https:// with a host and perhaps a port, and nothing after it")
        return url

    @field_validator("experiment_weights")
    @classmethod
    def _weights(cls, text: str) -> str:
        weights(text)
        return text

    @field_validator("postgres_url")
    @classmethod
    def _postgres(cls, url: str) -> str:
        if not url.startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return url


def read_settings() -> Settings:
    """Read the environment and `.env`. Raises SettingsError."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(f"{_key(problem)}: {_sentence(problem)}" for problem in error.errors())) from error


def key_of(name: str) -> str:
    """The variable that sets a setting: VIEWGATE_PORT of port."""
    return PREFIX + name.upper()


def given() -> dict[str, str]:
    """Where each setting that was given comes from: `environment` or `.env`, by its name. An empty one is not given."""
    keys = {key_of(name): name for name in Settings.model_fields}
    from_file = {keys[key]: FILE for key, value in _file().items() if key in keys and value}
    return from_file | {keys[key]: "environment" for key, value in _environment().items() if key in keys and value}


def misspelt() -> list[str]:
    """A sentence for each VIEWGATE_ variable, in the environment or `.env`, that is no setting."""
    keys = [key_of(name) for name in Settings.model_fields]
    found = sorted({*_environment(), *_file()})
    return [_guess(key, keys) for key in found if key.startswith(PREFIX) and key not in keys and not SERVICE_LINK.fullmatch(key)]


def hidden(value: object) -> object:
    """A setting's value as it may be shown: without the password of a URL."""
    if not isinstance(value, str):
        return value
    # a URL may have it in its query, too
    return re.sub(r"(?<=://)([^/@:]*):.*@", r"\1:…@", re.sub(r"([?&]\w*pass\w*=)[^&]*", r"\1…", value))


def _guess(key: str, keys: list[str]) -> str:
    near = get_close_matches(key, keys, n=1, cutoff=0.8)
    return f"{key} is no setting" + (f"; did you mean {near[0]}?" if near else "; `viewgate settings` lists them all.")


def _environment() -> Mapping[str, str]:
    return {key.upper(): value for key, value in os.environ.items()}


def _file() -> Mapping[str, str | None]:
    return {key.upper(): value for key, value in dotenv_values(FILE).items()} if Path(FILE).is_file() else {}


def _sentence(problem: ErrorDetails) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    return message if message.endswith((".", "?")) else f"{message}."


def _key(problem: ErrorDetails) -> str:
    return key_of("_".join(str(part) for part in problem["loc"]))

"""The settings, and the only place that reads the environment. docs/settings.md says more of each."""

from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.asyncio.connection import parse_url

from schema.loader import Mode

PREFIX = "VIEWGATE_"


class SettingsError(Exception):
    """A setting is malformed; the message names its key, a line for each."""


class Settings(BaseSettings):
    """From the environment, then from `.env`, then as written here. Frozen. Made by `read_settings`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", env_ignore_empty=True, frozen=True, extra="ignore")

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="The Redis of the view: redis://, rediss:// or unix://.")
    redis_connections: int = Field(default=32, ge=1, description="Most connections to each Redis that a process opens.")
    redis_timeout_seconds: float = Field(
        default=1.0, gt=0, description="How long to wait for Redis: to connect, to answer, to have a free connection."
    )
    postgres_url: str = Field(
        default="postgresql://127.0.0.1:5432/viewgate", description="The source database: for modes sql and cache-aside, rebuild, audit."
    )
    postgres_connections: int = Field(default=10, ge=1, description="Most connections to PostgreSQL that a process opens.")
    postgres_timeout_seconds: float = Field(
        default=5.0, gt=0, description="How long PostgreSQL may take to connect, or to answer one query."
    )
    kafka_bootstrap: str = Field(default="127.0.0.1:9092", description="Kafka brokers, host:port, separated by commas.")
    topic_prefix: str = Field(default="", description="What every topic's name begins with, such as Debezium's `topic.prefix` and a dot.")
    consumer_group: str = Field(default="viewgate", min_length=1, description="The projector's consumer group.")
    mode: Mode = Field(default="view", description="How requests are answered: view, cache-aside or sql.")
    allow_mode_header: bool = Field(default=False, description="Whether a request may choose its mode by the header viewgate-mode.")
    fallback: Literal["none", "cache-aside", "sql"] = Field(default="none", description="The mode that answers when the view cannot.")
    fallback_limit: int = Field(default=8, ge=1, description="How many requests the fallback may answer at once.")
    fallback_wait_seconds: float = Field(default=0.5, ge=0, description="How long a request waits for its turn at the fallback.")
    cache_redis_url: str | None = Field(default=None, description="The Redis of cache-aside; the view's if not set.")
    cache_ttl_seconds: float = Field(default=60.0, ge=1, description="How long cache-aside keeps a row, give or take a tenth.")
    host: str = Field(default="127.0.0.1", description="The address that `serve` listens at.")
    port: int = Field(default=8000, ge=0, le=65535, description="The port that `serve` listens at; 0: any free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged: this and worse.")
    projector_metrics_port: int = Field(default=0, ge=0, le=65535, description="The port of the projector's /metrics; 0: none.")
    checkpoint_seconds: float = Field(default=5.0, gt=0, description="How often the projector advances the watermarks of idle shards.")

    @field_validator("redis_url", "cache_redis_url")
    @classmethod
    def _redis(cls, url: str | None) -> str | None:
        if url is not None:
            parse_url(url)
        return url

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
        raise SettingsError(
            "\n".join(f"{_key(problem)}: {problem['msg'].removeprefix('Value error, ')}." for problem in error.errors())
        ) from error


def _key(problem: ErrorDetails) -> str:
    return PREFIX + "_".join(str(part) for part in problem["loc"]).upper()

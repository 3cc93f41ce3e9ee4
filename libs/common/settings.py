"""Settings from the environment, typed and read once. `NAME_FILE` reads a value from a file; unknown names are refused."""

import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "CARTWRIGHT_"

KNOWN = frozenset(
    [
        "HOME",
        "POSTGRES_ADMIN_URL",
        "DATABASE_URL",
        "RELAY_DATABASE_URL",
        "OWNER_DATABASE_URL",
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_SECURITY_PROTOCOL",
        "KAFKA_SASL_MECHANISM",
        "KAFKA_SASL_USERNAME",
        "KAFKA_SASL_PASSWORD",
        "KAFKA_SSL_CAFILE",
        "TOPIC_PREFIX",
        "STRIPE_API_KEY",
        "STRIPE_API_BASE",
        "STRIPE_WEBHOOK_SECRET",
        "ISSUER",
        "JWKS_URL",
        "MASTER_KEY",
        "PREVIOUS_MASTER_KEY",
        "PLATFORM_CLIENT_SECRET",
        "HTTP_HOST",
        "HTTP_PORT",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "DRAIN_SECONDS",
        "INBOX_PARK_SHARE",
        "INBOX_REMEMBERED_DAYS",
        "CHECKOUT_TTL_SECONDS",
        "ORPHAN_MONEY_SECONDS",
    ]
)
"""Every name that any part of the system reads; `docs` say what each means."""


class SettingsError(Exception):
    """The environment is not usable as it is; the message says what to change."""


class Settings(BaseSettings):
    """What every service process reads."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    database_url: SecretStr
    relay_database_url: SecretStr | None = None
    kafka_bootstrap_servers: str
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: Path | None = None
    topic_prefix: str = ""
    issuer: str
    jwks_url: str
    http_host: str = "127.0.0.1"
    http_port: int
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    drain_seconds: int = 10
    inbox_park_share: float = 0.5
    """When more of a batch than this would be parked, the consumer stands still instead."""
    inbox_remembered_days: int = 14
    """How long the message ids of foreign publishers are kept; an older delta is refused."""

    @classmethod
    def read(cls) -> Self:
        """Read the process's environment. Raises SettingsError with one line that says what is wrong."""
        read_files()
        try:
            return cls()
        except ValueError as error:
            problems: list[Any] = getattr(error, "errors", list)()
            names = ", ".join(f"{PREFIX}{str(problem['loc'][0]).upper()} ({problem['msg']})" for problem in problems)
            message = f"set these environment variables: {names or error}"
            raise SettingsError(message) from error


def read_files() -> None:
    """Refuse unknown names, and put the contents of `NAME_FILE` in the place of `NAME`."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        short = name.removeprefix(PREFIX)
        if short in KNOWN:
            continue
        if not (short.endswith("_FILE") and short.removesuffix("_FILE") in KNOWN):
            message = f"unknown environment variable {name}; see the README for the names that exist"
            raise SettingsError(message)
        try:
            os.environ.setdefault(name.removesuffix("_FILE"), Path(os.environ[name]).read_text(encoding="utf-8").strip())
        except OSError as error:
            message = f"{name} names a file that cannot be read: {error}"
            raise SettingsError(message) from error


def variable(name: str) -> str | None:
    """One variable outside a service's settings, for `migrate`."""
    read_files()
    value: Any = os.environ.get(PREFIX + name)
    return value or None

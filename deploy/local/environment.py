"""The environment: what the user may set for a stack, and what each child process is given of it."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from deploy.local.databases import database_url
from deploy.local.errors import StackError
from deploy.local.ports import HOST
from deploy.local.state import ROOT

ProcessKind = Literal["api", "worker"]

PLATFORM_CLIENT_ID: Final = "platform"
"""The client id of the first platform operator, whom `migrate identity` makes."""

_PASSED_ON: Final = (
    *("LOG_LEVEL", "LOG_FORMAT", "DRAIN_SECONDS", "CHECKOUT_TTL_SECONDS", "ORPHAN_MONEY_SECONDS"),
    *("INBOX_PARK_SHARE", "INBOX_REMEMBERED_DAYS"),
)
_KAFKA_SECURITY: Final = tuple(
    f"KAFKA_{name}" for name in ("SECURITY_PROTOCOL", "SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD", "SSL_CAFILE")
)
_OTHERS: Final = (
    *("HOME", "POSTGRES_ADMIN_URL", "DATABASE_URL", "RELAY_DATABASE_URL", "OWNER_DATABASE_URL"),
    *("KAFKA_BOOTSTRAP_SERVERS", "TOPIC_PREFIX", "STRIPE_API_KEY", "STRIPE_API_BASE", "STRIPE_WEBHOOK_SECRET"),
    *("ISSUER", "JWKS_URL", "MASTER_KEY", "PREVIOUS_MASTER_KEY", "HTTP_HOST", "HTTP_PORT", "PLATFORM_CLIENT_SECRET"),
)
_PREFIX: Final = "CARTWRIGHT_"
_KNOWN: Final = frozenset(
    _PREFIX + name + suffix for name in (*_PASSED_ON, *_KAFKA_SECURITY, *_OTHERS) for suffix in ("", "_FILE")
)

# What a process of ours inherits besides; a stray PGHOST or PYTHONPATH of the user's must not reach it.
_INHERITED: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"),
    }
)


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything the processes of one stack need to find each other."""

    admin_url: str
    bootstrap_servers: str
    issuer: str
    master_key: str
    stripe_api_base: str
    stripe_api_key: str
    stripe_webhook_secret: str
    platform_secret_file: Path
    database_prefix: str = ""
    topic_prefix: str = ""

    def serving(self, service: str, kind: ProcessKind, port: int) -> dict[str, str]:
        """Return the environment of one service process."""
        own = {
            "DATABASE_URL": self._database(service, "app"),
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "ISSUER": self.issuer,
            "JWKS_URL": variable("JWKS_URL") or f"{self.issuer}/.well-known/jwks.json",
            "HTTP_HOST": HOST,
            "HTTP_PORT": str(port),
            **_given(*_PASSED_ON, *_KAFKA_SECURITY),
        }
        if self.topic_prefix:
            own["TOPIC_PREFIX"] = self.topic_prefix
        if kind == "worker":
            own["RELAY_DATABASE_URL"] = self._database(service, "relay")
        if service == "payments":
            own |= {
                "STRIPE_API_BASE": self.stripe_api_base,
                "STRIPE_API_KEY": self.stripe_api_key,
                "STRIPE_WEBHOOK_SECRET": self.stripe_webhook_secret,
                **_given("PREVIOUS_MASTER_KEY"),
            }
        if service in {"identity", "payments"}:
            own["MASTER_KEY"] = self.master_key
        return child_environment(own)

    def _database(self, service: str, role: Literal["owner", "app", "relay"]) -> str:
        return database_url(self.admin_url, service, role, self.database_prefix)


def migration_environment(owner_url: str, service: str, platform_secret_file: Path) -> dict[str, str]:
    """Return what `migrate SERVICE` is given: the owner's connection, and the operator's secret for identity."""
    own = {"OWNER_DATABASE_URL": owner_url, **_given("LOG_LEVEL", "LOG_FORMAT")}
    if service == "identity":
        own["PLATFORM_CLIENT_SECRET_FILE"] = str(platform_secret_file)
    return child_environment(own)


def child_environment(own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a Python child: what every program needs, and its own `CARTWRIGHT_*` variables."""
    inherited = {name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith("OTEL_")}
    ours = {_PREFIX + name: value for name, value in (own or {}).items()}
    # Unbuffered, so that the end of a crashed process's log is really its end.
    return inherited | ours | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def python(*arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module, whatever lies in the working directory (`-P`)."""
    return (sys.executable, "-P", "-m", *arguments)


def variable(name: str) -> str | None:
    """Return `CARTWRIGHT_<name>`, read from the file `CARTWRIGHT_<name>_FILE` names if that is set instead."""
    if value := os.environ.get(_PREFIX + name):
        return value
    file = os.environ.get(f"{_PREFIX}{name}_FILE")
    if not file:
        return None
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise StackError(f"{_PREFIX}{name}_FILE names {file}, which cannot be read ({error.strerror})") from error


def refuse_unknown_variables() -> None:
    """Stop at a misspelt `CARTWRIGHT_*` name, which would otherwise silently do nothing."""
    unknown = sorted(name for name in os.environ if name.startswith(_PREFIX) and name not in _KNOWN)
    if unknown:
        raise StackError(f"unknown environment variable {', '.join(unknown)}: unset it or correct its name")


def _given(*names: str) -> dict[str, str]:
    values = {name: variable(name) for name in names}
    return {name: value for name, value in values.items() if value is not None}

"""The environment: what the user may set for a stack, and what each child process is given of it."""

import functools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from deploy.composition import settings_of
from deploy.local.cells import CELLED
from deploy.local.databases import cell_prefix, database_url
from deploy.local.errors import StackError
from deploy.local.ports import HOST
from deploy.local.principals import SaslListener
from deploy.local.state import ROOT
from libs.common.cells import MAIN
from services import SERVICES

ProcessKind = Literal["api", "worker"]

PLATFORM_CLIENT_ID: Final = "platform"
"""The client id of the first platform operator, whom `migrate identity` makes."""
BOOTSTRAPPED: Final = ("identity",)
"""Where `migrate` does more than to migrate."""

_PREFIX: Final = "CARTWRIGHT_"
_LEAD_SECONDS: Final = "10"
"""All who check tokens run on this machine, and hear of a key at once: nobody need wait ten minutes for it to sign."""
OWN: Final[Mapping[str, tuple[str, str]]] = {
    "HOME": ("command line", "State directory; by default `.cartwright` in this clone."),
    "PYTHON": ("command line", "The interpreter `.venv` is made with, 3.11 or newer; by default the fastest that is found."),
    "DEPLOYMENT": ("command line", "A file that describes another deployment than the stack here, for operators' verbs."),
    "POSTGRES_ADMIN_URL": ("command line", "Use this server; databases and roles are made there."),
    "BACKUP_KEY": (
        "command line",
        "What backups are sealed with: the base64 of 32 random bytes; unless set one is made in the state directory.",
    ),
    "PREVIOUS_BACKUP_KEY": ("command line", "The one before it, for backups that were sealed with that."),
    "GATEWAY_RATE_OF_STRANGERS": (
        "command line",
        "So many a second, and so many at once, one address may ask of each route that needs no token; `200/2000` unless set.",
    ),
    "GATEWAY_RATE_OF_BEGINNERS": ("command line", "The same of each route that begins what costs; `200/1000` unless set."),
    "OWNER_DATABASE_URL": ("`migrate`", "The service's database as its owner role."),
    "PLATFORM_CLIENT_SECRET": ("`migrate identity`", "The secret of the first platform operator, client `platform`."),
}
"""What the command line and `migrate` read, and what for. Every other variable is a setting of some service."""

_SERVICE_LINK: Final = re.compile(
    r"CARTWRIGHT_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")

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
    issuer_root_key: str
    master_keys: Callable[[], Mapping[str, str]]
    """The variables that hold them, as they are when a process starts."""
    stripe_api_base: str
    stripe_api_key: str
    stripe_webhook_secret: str
    platform_secret_file: Path
    database_prefix: str = ""
    cells: tuple[str, ...] = ()
    stripe_connect_client_id: str = ""
    console_urls: str = ""
    shop_urls: str = ""
    topic_prefix: str = ""
    gateway_address: str = ""
    """Where the gateway asks from; what it says of a caller's address is believed."""
    kafka_sasl: SaslListener | None = None
    """None for a cluster that is the user's: what he set goes to every service."""

    def serving(self, service: str, kind: ProcessKind, port: int, ops_port: int, cell: str = MAIN) -> dict[str, str]:
        """Return the environment of one service process: of what it reads, what the stack decides and what the user has set.

        Only an API has a door for operators beside its own.
        """
        read = setting_names(service)
        ours = {name: value for name, value in self._values(service, kind, port, ops_port, cell).items() if name in read}
        given = _given(*(read - ours.keys()))
        return child_environment(given | {name: value for name, value in ours.items() if value})

    def secrets(self, service: str) -> dict[str, str]:
        """Return what a process is given besides whenever it starts: the keys it opens with, if it keeps anything sealed."""
        read = setting_names(service)
        return {_PREFIX + name: value for name, value in self.master_keys().items() if name in read}

    def _values(self, service: str, kind: ProcessKind, port: int, ops_port: int, cell: str) -> dict[str, str]:
        """All that the stack decides for its processes, by variable; an empty one is not set at all."""
        return {
            "DATABASE_URL": self._database(service, "app", cell),
            "SESSION_DATABASE_URL": "",  # there is nothing before the stack's own server
            "RELAY_DATABASE_URL": self._database(service, "relay", cell) if kind == "worker" else "",
            "CELL": "" if cell == MAIN else cell,
            "CELL_DATABASE_URLS": self._cells(service) if kind == "api" else "",
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            **(self.kafka_sasl.environment(service) if self.kafka_sasl else {}),
            "TOPIC_PREFIX": self.topic_prefix,
            "ISSUER": self.issuer,
            "JWKS_URL": variable("JWKS_URL") or f"{self.issuer}/.well-known/jwks.json",
            "ISSUER_ROOT_KEY": self.issuer_root_key,
            "ISSUER_ROOT_PUBLIC_KEY": variable("ISSUER_ROOT_PUBLIC_KEY") or _public_half(self.issuer_root_key),
            "HTTP_HOST": HOST,
            "HTTP_PORT": str(port),
            "OPS_HOST": HOST if kind == "api" else "",
            "OPS_PORT": str(ops_port) if kind == "api" else "",
            "TRUSTED_PROXIES": variable("TRUSTED_PROXIES") or (f"{self.gateway_address}/32" if self.gateway_address else ""),
            "SIGNING_KEY_LEAD_SECONDS": variable("SIGNING_KEY_LEAD_SECONDS") or _LEAD_SECONDS,
            "CONSOLE_URLS": variable("CONSOLE_URLS") or self.console_urls,
            "SHOP_URLS": variable("SHOP_URLS") or self.shop_urls,
            "SHOWS_INVITATIONS": variable("SHOWS_INVITATIONS") or "true",
            "STRIPE_API_BASE": self.stripe_api_base,
            "STRIPE_API_KEY": self.stripe_api_key,
            "STRIPE_CONNECT_CLIENT_ID": self.stripe_connect_client_id,
            "STRIPE_WEBHOOK_SECRET": self.stripe_webhook_secret,
        }

    def _database(self, service: str, role: Literal["owner", "app", "relay"], cell: str) -> str:
        return database_url(self.admin_url, service, role, cell_prefix(cell, self.database_prefix))

    def _cells(self, service: str) -> str:
        """The databases of a service in all cells but the main one, as its API is told of them."""
        known = {cell: self._database(service, "app", cell) for cell in self.cells if service in CELLED}
        return json.dumps(known) if known else ""


def migration_environment(owner_url: str, service: str, platform_secret_file: Path) -> dict[str, str]:
    """Return what `migrate SERVICE` is given: the owner's connection, and the operator's secret for identity."""
    own = {"OWNER_DATABASE_URL": owner_url, **_given("LOG_LEVEL", "LOG_FORMAT")}
    if service in BOOTSTRAPPED:
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


def installer() -> str | None:
    """Where uv is, which installs packages: beside this Python, else wherever the shell finds it."""
    return shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")


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


def refuse_unknown_variables(serving: str | None = None) -> None:
    """Stop at a misspelt `CARTWRIGHT_*` name, which would otherwise silently do nothing.

    The service that is being served is asked first: most processes are given nothing that it does not know, and then
    nothing is loaded of the others. What Kubernetes sets by itself in every pod beside a Service that is called
    `cartwright-…` is known by its form, and means nothing to us.
    """
    given = {name for name, value in os.environ.items() if name.startswith(_PREFIX) and not _is_of_kubernetes(name, value)}
    unknown = {name for name in given if _plain(name) not in OWN}
    for service in sorted(SERVICES, key=lambda service: service != serving):
        if unknown:
            unknown = {name for name in unknown if _plain(name) not in setting_names(service)}
    if unknown:
        raise StackError(f"unknown environment variable {', '.join(sorted(unknown))}: unset it or correct its name")


@functools.cache
def known_names() -> frozenset[str]:
    """Every variable that any part of the system reads, without the prefix."""
    return frozenset(OWN).union(*map(setting_names, SERVICES))


@functools.cache
def setting_names(service: str) -> frozenset[str]:
    """The variables that a service reads: its settings, by name."""
    return frozenset(name.upper() for name in settings_of(service).model_fields)


def _public_half(root_key: str) -> str:
    """What all services know of the root key."""
    try:
        from libs.common.certificates import RootKey  # takes as long to import as all the rest

        return json.dumps(RootKey.read("", root_key).public)
    except ValueError as error:
        raise StackError(f"{_PREFIX}ISSUER_ROOT_KEY is not usable: {error}") from error


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Whether it tells where some Service is, as Kubernetes and Docker's links have it."""
    return _SERVICE_LINK.fullmatch(name) is not None or (name.endswith("_PORT") and _SERVICE_ADDRESS.match(value) is not None)


def _plain(name: str) -> str:
    return name.removeprefix(_PREFIX).removesuffix("_FILE")


def _given(*names: str) -> dict[str, str]:
    values = {name: variable(name) for name in names}
    return {name: value for name, value in values.items() if value is not None}

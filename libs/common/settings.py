"""Settings from the environment, typed and read once. `NAME_FILE` reads a value from a file.

Names that nobody reads are refused by the command line, which knows what every part of the system reads.
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FilePath, SecretStr, StringConstraints, TypeAdapter, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from libs.common.addresses import address
from libs.common.cells import MAIN, NAME
from libs.common.certificates import Roots

PREFIX = "CARTWRIGHT_"

Rate = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,6}/[1-9][0-9]{0,6}$")]
"""So many a second, and so many at once."""

CellName = Annotated[str, StringConstraints(pattern=NAME)]
CELLS = TypeAdapter(dict[CellName, str])


class SettingsError(Exception):
    """The environment is not usable as it is; the message says what to change."""


class Reading(BaseSettings):
    """What is read of a process's environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

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


class KafkaLogin(Reading):
    """How whoever connects to Kafka proves who he is: services, and the command line on a cluster that is not ours."""

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."""
    kafka_ssl_cafile: FilePath | None = None
    """The authority that signed the brokers' certificates; the system's, unless set."""
    kafka_ssl_keyfile: FilePath | None = None
    """The key of our own certificate, where it is not in the same file."""
    kafka_ssl_certfile: FilePath | None = None
    """Our own certificate, for brokers that know their clients by it. Read when the process starts."""
    kafka_sasl_username: str | None = None
    """User."""
    kafka_sasl_password: SecretStr | None = None
    """Password."""
    kafka_sasl_tokenfile: FilePath | None = None
    """For `OAUTHBEARER`: the file in which something else keeps a valid token. It is read at each log-in."""
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"], Field(validate_default=True)
    ] = "SCRAM-SHA-512"
    """`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`."""

    @field_validator("kafka_ssl_cafile", "kafka_ssl_certfile")
    @classmethod
    def _is_a_certificate(cls, value: Path | None, others: ValidationInfo) -> Path | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if value and others.field_name == "kafka_ssl_cafile":
                context.load_verify_locations(value)
            elif value:
                context.load_cert_chain(value, others.data.get("kafka_ssl_keyfile"))
        except OSError as error:  # of which OpenSSL's are some
            message = f"{value} holds no certificate that can be used: {getattr(error, 'reason', None) or error}"
            raise ValueError(message) from error
        return value

    @field_validator("kafka_sasl_mechanism")
    @classmethod
    def _has_what_it_proves_it_with(cls, value: str, others: ValidationInfo) -> str:
        known = others.data
        needed = ["tokenfile"] if value == "OAUTHBEARER" else ["username", "password"]
        missing = [f"{PREFIX}KAFKA_SASL_{name.upper()}" for name in needed if not known.get(f"kafka_sasl_{name}")]
        if known.get("kafka_security_protocol", "").startswith("SASL") and missing:
            message = f"{value} needs {' and '.join(missing)}"
            raise ValueError(message)
        return value


class Settings(KafkaLogin):
    """What every service process reads."""

    session_database_url: SecretStr | None = None
    """The same as `DATABASE_URL`, past a pool that lends by the transaction: one connection of a process listens there."""
    database_url: SecretStr
    """The service's database as its app role. Its parameters are libpq's, and `pooling` ([operations](docs/operations.md))."""
    relay_database_url: SecretStr | None = None
    """Workers: the same database as its relay role, not through a pool that lends by the transaction."""
    database_connections: Annotated[int, Field(ge=4, le=1_000)] | None = None
    """So many connections its pool opens at most; unless set, 12 of an API process and 8 of a worker."""
    database_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    """So many may wait for one of them; whoever comes then is answered 503 at once."""
    kafka_bootstrap_servers: str
    """The broker, or several with commas between: one that answers is enough. `up` starts none then."""
    topic_prefix: str = ""
    """Stands before every topic and consumer group."""
    cell: CellName = MAIN
    """Workers: which set of databases they work on ([scale](docs/scale.md)). Tenants of other cells are none of theirs."""
    cell_database_urls: SecretStr | None = None
    """APIs: a JSON object, name of a cell to `DATABASE_URL` there. The main cell's is that itself."""
    issuer: str
    """The `iss` of access tokens; identity's public address."""
    jwks_url: str
    """Where the keys of that issuer are."""
    issuer_root_public_key: str
    """The public half of its root key, which certifies those keys: a JWK, or a JSON list of several that all count."""
    http_host: str = "127.0.0.1"
    """Where it listens; `::` is everywhere, over IPv4 and IPv6."""
    http_port: int
    """Its port. A worker has one door, which is for operators."""
    ops_host: str = "127.0.0.1"
    """APIs: where operators and probes are answered."""
    ops_port: int | None = None
    """APIs, required there: the port of that. `/ops`, `/metrics`, `/readyz`, `/livez` and `/startupz` are nowhere else."""
    http_connections: int = 4_000
    """So many may be connected to it at once."""
    http_connections_per_address: int = 2_000
    """The same from one address; for a proxy that is trusted there is no such limit."""
    trusted_proxies: str = ""
    """Networks of proxies whose `X-Forwarded-For` is believed, such as `10.0.0.0/8,192.0.2.7`. Nobody's, unless set."""
    rate_per_address: Rate = "200/2000"
    """Sessions, tokens and look-ups that one address may ask of a process: so many a second, and so many at once."""
    rate_per_subject: Rate = "20/100"
    """Carts, places in queues and exports that one shopper or member may begin in it."""
    rate_per_tenant: Rate = "1000/5000"
    """The same of all who act in one tenant."""
    rate_of_requests_per_subject: Rate = "300/3000"
    """All that one shopper may ask of it. Tenants may choose less (`limits`)."""
    rate_of_requests_per_tenant: Rate = "5000/25000"
    """The same of all who act in one tenant."""
    rate_of_checkouts: Rate = "10/60"
    """Checkouts that one shopper may begin in it."""
    rate_of_misses: Rate = "5/100"
    """Times that one address may name a tenant or a client that is not there, or sign what it is not."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """`debug`, `info`, `warning` or `error`."""
    log_format: Literal["json", "console"] = "json"
    """`json` or `console`."""
    drain_seconds: int = 10
    """How long requests may take to end after SIGTERM."""
    inbox_park_share: float = 0.5
    """Workers: the share of tenants above which a topic stands still on which they fail, instead of being parked."""
    inbox_waiting_seconds: int = 60
    """Workers: how long a message waits for what it refers to, such as its tenant, before it is parked."""
    inbox_source_budget: int = 1_000
    """Workers: how many messages of one source, for one tenant, may be refused and undecided before it is paused."""
    inbox_remembered_days: int = 14
    """Workers: how long the message ids of other publishers are kept; an older delta is refused."""
    adopt_new_log: bool = False
    """Workers: read a log that is not the one they knew without being told to, instead of waiting for an operator."""

    @field_validator("database_url", "relay_database_url", "session_database_url")
    @classmethod
    def _has_its_sessions(cls, value: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if value is None or address(value.get_secret_value())[1] != "transaction":
            return value
        if others.field_name != "database_url":
            message = "what is done there needs a session, and with pooling=transaction there is none: go past that pool"
            raise ValueError(message)
        if not others.data.get("session_database_url"):
            message = f"with pooling=transaction nobody can listen: set {PREFIX}SESSION_DATABASE_URL too, past that pool"
            raise ValueError(message)
        return value

    @field_validator("cell_database_urls")
    @classmethod
    def _are_of_other_cells(cls, value: SecretStr | None) -> SecretStr | None:
        for name, url in ({} if value is None else read_cells(value.get_secret_value())).items():
            if address(url)[1] == "transaction":
                message = f"in cell {name} there is a pool with pooling=transaction, where nobody can listen: go past it"
                raise ValueError(message)
        return value

    @property
    def other_cells(self) -> Mapping[str, str]:
        """The service's database in each cell but the main one."""
        return {} if self.cell_database_urls is None else read_cells(self.cell_database_urls.get_secret_value())

    @property
    def listening_url(self) -> str:
        """Where a process listens for hints."""
        return (self.session_database_url or self.database_url).get_secret_value()

    @field_validator("issuer_root_public_key")
    @classmethod
    def _is_a_root(cls, value: str) -> str:
        Roots("", value)
        return value

    @property
    def roots(self) -> Roots:
        """Whose word on signing keys is believed."""
        return Roots(self.issuer, self.issuer_root_public_key)


def read_cells(text: str) -> Mapping[str, str]:
    """A database of each cell but the main one. Raises ValueError, which tells none of them."""
    try:
        found = CELLS.validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        message = f"it is a JSON object of cells' names and URLs: {where + ': ' if where else ''}{problem['msg']}"
        raise ValueError(message) from None
    if MAIN in found:
        message = f"the database of cell {MAIN} is {PREFIX}DATABASE_URL, and no member of it"
        raise ValueError(message)
    return found


def read_files() -> None:
    """Put the contents of `NAME_FILE` in the place of `NAME`."""
    for name in [name for name in os.environ if name.startswith(PREFIX) and name.endswith("_FILE")]:
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

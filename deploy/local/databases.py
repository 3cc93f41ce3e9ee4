"""The databases and roles of a service on a PostgreSQL server, embedded or given.

Each service has a database of its own and three roles: the owner migrates, the app works under row-level security,
the relay reads the outbox. No statement and no lock of the last two lasts for ever: PostgreSQL lets whoever may change or delete
rows lock their whole table, so that is bounded where it cannot be refused. A session may set other limits for itself: they are
for whoever forgets to, not against a thief.
"""

import asyncio
import hashlib
import hmac
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from deploy.local.errors import StackError
from deploy.local.state import ROOT, Home, default_home

if TYPE_CHECKING:
    import asyncpg

Role = Literal["owner", "app", "relay"]

ROLES: Final[tuple[Role, ...]] = ("owner", "app", "relay")

LIMITS: Final = {"statement_timeout": "60s", "lock_timeout": "30s", "idle_in_transaction_session_timeout": "60s"}
"""Of a session that sets none of its own. None for the owner: a migration takes the time that it takes."""

# As long as those we make: a password that a person chose could be guessed from one derived from it.
_UNGUESSABLE: Final = 32

_RECOVERY_SECONDS: Final = 600
_RECOVERY_LOOK_SECONDS: Final = 0.2

# Roles belong to the whole server, so stacks that share one must not change them at the same time.
_LOCK: Final = 0x63617274


def database_url(admin_url: str, service: str, role: Role, prefix: str = "") -> str:
    """Return where one role of a service connects."""
    server = urlsplit(admin_url)
    host = server.netloc.rpartition("@")[2]
    user = f"{service}_{role}"
    login = f"{user}:{role_password(admin_url, user)}"
    return urlunsplit((server.scheme, f"{login}@{host}", f"/{quote(prefix + service)}", server.query, ""))


def role_password(admin_url: str, role: str) -> str:
    """Return the role's password, derived from a random secret: the server's, which every stack on it knows, or else our own.

    Ours lies in the state directory. Stacks that share a server whose administrator has no long password share it too.
    """
    secret = unquote(urlsplit(admin_url).password or "")
    if len(secret) < _UNGUESSABLE:
        home = Home(default_home())
        if not home.secret_file("database-roles").exists():
            home.prepare()
        secret = home.secret("database-roles")
    return hmac.new(secret.encode(), role.encode(), hashlib.sha256).hexdigest()


async def provision(admin_url: str, service: str, prefix: str = "") -> None:
    """Make a service's database and its roles, or bring them back to what they should be."""
    import asyncpg

    try:
        connection = await asyncpg.connect(admin_url, timeout=10)
    except (OSError, asyncpg.PostgresError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise StackError(f"no administrator's connection to PostgreSQL ({reason}): see CARTWRIGHT_POSTGRES_ADMIN_URL") from error
    try:
        await _until_writable(connection)
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        for role in ROLES:
            await _make_role(connection, admin_url, f"{service}_{role}")
        await _make_database(connection, f"{prefix}{service}", service)
        await _close_languages(admin_url, f"{prefix}{service}", service)
    except asyncpg.PostgresError as error:
        raise StackError(f"PostgreSQL refused to make the database {prefix}{service} or its roles: {error}") from error
    finally:
        await connection.close()


async def is_newest(owner_url: str, service: str) -> bool:
    """Tell whether a service's database has every migration already."""
    import asyncpg

    versions = ROOT / "services" / service / "migrations" / "versions"
    newest = max(path.stem.partition("_")[0] for path in versions.glob("*_*.py"))
    connection = await asyncpg.connect(owner_url, timeout=10)
    try:
        return bool(await connection.fetchval("SELECT version_num FROM alembic_version") == newest)
    except asyncpg.UndefinedTableError:
        return False
    finally:
        await connection.close()


async def _until_writable(connection: "asyncpg.Connection") -> None:
    """Wait for a server that is being restored: it can be read before it has all of its log, and written to after that."""
    try:
        async with asyncio.timeout(_RECOVERY_SECONDS):
            while await connection.fetchval("SELECT pg_is_in_recovery()"):  # noqa: ASYNC110 - the server calls nobody for that
                await asyncio.sleep(_RECOVERY_LOOK_SECONDS)
    except TimeoutError as error:
        raise StackError(
            f"PostgreSQL can only be read: it has been recovering for {_RECOVERY_SECONDS} s; let it finish, or promote it"
        ) from error


async def close_server(admin_url: str) -> None:
    """Keep every role out of the databases that are no service's. For a server of our own: on another's, its others need them."""
    import asyncpg

    connection = await asyncpg.connect(admin_url, timeout=10)
    try:
        await connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
    finally:
        await connection.close()


def limiting(role: str) -> list[str]:
    """The statements that bound how long a role's sessions can hold anything."""
    return [f"ALTER ROLE \"{role}\" SET {name} = '{limit}'" for name, limit in LIMITS.items()]


def closing(database: str, service: str) -> list[str]:
    """The statements that let nobody into a service's database but the service."""
    return [
        f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC',
        f'GRANT CONNECT ON DATABASE "{database}" TO "{service}_app", "{service}_relay"',
    ]


def closing_languages(service: str) -> list[str]:
    """The statements, given in its database, that let nobody but its owner write programs."""
    return [f'GRANT USAGE ON LANGUAGE plpgsql TO "{service}_owner"', "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC"]


async def _make_role(connection: "asyncpg.Connection", admin_url: str, role: str) -> None:
    if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
        await connection.execute(f'CREATE ROLE "{role}"')
    # NOBYPASSRLS is what makes row-level security hold even for a careless query.
    await connection.execute(
        f'ALTER ROLE "{role}" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION '
        f"PASSWORD '{role_password(admin_url, role)}'"
    )
    if not role.endswith("_owner"):
        await connection.execute("; ".join(limiting(role)))


async def _make_database(connection: "asyncpg.Connection", database: str, service: str) -> None:
    if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", database):
        # An administrator who is no superuser must be a member of a role to give it a database.
        await connection.execute(f'GRANT "{service}_owner" TO CURRENT_USER')
        await connection.execute(f'CREATE DATABASE "{database}" OWNER "{service}_owner"')
    await connection.execute("; ".join(closing(database, service)))


async def _close_languages(admin_url: str, database: str, service: str) -> None:
    """Let nobody but the owner write programs (`DO`) in there; what the owner wrote runs for whoever may call it.

    PostgreSQL only warns an administrator who is no superuser: on such a server it has to be done by who is.
    """
    import asyncpg

    connection = await asyncpg.connect(admin_url, database=database, timeout=10)
    try:
        await connection.execute("; ".join(closing_languages(service)))
    finally:
        await connection.close()

"""The databases and roles of a service on a PostgreSQL server, embedded or given.

Each service has a database of its own and three roles: the owner migrates, the app works under row-level security,
the relay reads the outbox. No statement and no lock of the last two lasts for ever: PostgreSQL lets whoever may change or delete
rows lock their whole table, so that is bounded where it cannot be refused. A session may set other limits for itself: they are
for whoever forgets to, not against a thief.
"""

import asyncio
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from deploy.local.errors import StackError
from deploy.local.state import ROOT, Home, default_home
from libs.common.cells import MAIN

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


def cell_prefix(cell: str, prefix: str = "") -> str:
    """How the names of a cell's databases begin, where all databases of an installation begin with that."""
    return prefix if cell == MAIN else f"{prefix}{cell}_"


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


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a server lacks, and the statement that gives it."""

    sql: str
    database: str | None = None
    """Where it is to be given; None where the administrator is anyway."""
    secret: str = ""
    """What takes the place of `%s` in it."""
    is_ours: bool = True
    """Whether this administrator can; else somebody has to who is a superuser."""

    def __str__(self) -> str:
        """Say it without its secret."""
        where = f"{self.database}: " if self.database else ""
        return where + self.sql.replace("%s", "…")


async def provision(admin_url: str, service: str, prefix: str = "") -> list[Step]:
    """Make a service's database and its roles, or bring them back to what they should be; answers what was lacking."""
    return await _with_administrator(admin_url, service, prefix, changes=True)


async def plan(admin_url: str, service: str, prefix: str = "") -> list[Step]:
    """What `provision` would do. It changes nothing."""
    return await _with_administrator(admin_url, service, prefix, changes=False)


async def _with_administrator(admin_url: str, service: str, prefix: str, *, changes: bool) -> list[Step]:
    import asyncpg

    try:
        connection = await asyncpg.connect(admin_url, timeout=10)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise StackError(f"no administrator's connection to PostgreSQL ({reason}): see CARTWRIGHT_POSTGRES_ADMIN_URL") from error
    try:
        await _until_writable(connection)
        if changes:
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        done = await _lacking(connection, admin_url, service, prefix)
        for step in done if changes else ():
            await _take(connection, admin_url, step)
    except asyncpg.PostgresError as error:
        raise StackError(f"PostgreSQL refused to make the database {prefix}{service} or its roles: {error}") from error
    finally:
        await connection.close()
    return done


async def _inside(admin_url: str, database: str) -> "asyncpg.Connection":
    """The administrator's connection to a database that is there. Of several servers, a standby may yet have to hear of it."""
    import asyncpg

    async with asyncio.timeout(_RECOVERY_SECONDS):
        while True:
            try:
                return await asyncpg.connect(admin_url, database=database, timeout=10)
            except asyncpg.InvalidCatalogNameError:
                await asyncio.sleep(_RECOVERY_LOOK_SECONDS)


async def _take(connection: "asyncpg.Connection", admin_url: str, step: Step) -> None:
    if step.database is None:
        await connection.execute(step.sql.replace("%s", step.secret))
    elif step.is_ours:
        inside = await _inside(admin_url, step.database)
        try:
            await inside.execute(step.sql)
        finally:
            await inside.close()


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


ATTRIBUTES: Final = {
    "rolcanlogin": ("LOGIN", True),
    "rolsuper": ("NOSUPERUSER", False),
    "rolcreatedb": ("NOCREATEDB", False),
    "rolcreaterole": ("NOCREATEROLE", False),
    # What makes row-level security hold even for a careless query.
    "rolbypassrls": ("NOBYPASSRLS", False),
    "rolreplication": ("NOREPLICATION", False),
}
"""What a role is to be, by its column in `pg_roles`. Only what it is not is changed: some of it only a superuser may even say."""


async def _lacking(connection: "asyncpg.Connection", admin_url: str, service: str, prefix: str) -> list[Step]:
    database = f"{prefix}{service}"
    steps = []
    for role in ROLES:
        steps += await _of_role(connection, admin_url, service, role, prefix)
    return [*steps, *await _of_database(connection, admin_url, database, service)]


async def _of_role(connection: "asyncpg.Connection", admin_url: str, service: str, kind: Role, prefix: str) -> list[Step]:
    role = f"{service}_{kind}"
    secret = role_password(admin_url, role)
    known = await connection.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", role)
    limits = limiting(role) if kind != "owner" else []
    if known is None:
        return [Step(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '%s'", secret=secret), *map(Step, limits)]
    steps = []
    changed = [word for column, (word, wanted) in ATTRIBUTES.items() if known[column] is not wanted]
    if changed or not await _lets_in(database_url(admin_url, service, kind, prefix)):
        steps.append(Step(" ".join(["ALTER ROLE", f'"{role}"', *changed, "PASSWORD '%s'"]), secret=secret))
    missing = [f"{name}={limit}" not in (known["rolconfig"] or ()) for name, limit in LIMITS.items()]
    return [*steps, *(Step(sql) for sql, is_missing in zip(limits, missing, strict=False) if is_missing)]


async def _lets_in(url: str) -> bool:
    """Whether a role's password is the one it should have. What else keeps it out comes after that is known."""
    import asyncpg

    try:
        connection = await asyncpg.connect(url, timeout=10)
    except asyncpg.InvalidPasswordError:
        return False
    except asyncpg.PostgresError:
        return True
    await connection.close()
    return True


async def _of_database(connection: "asyncpg.Connection", admin_url: str, database: str, service: str) -> list[Step]:
    close, let_in = closing(database, service)
    give, take = closing_languages(service)
    if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", database):
        is_superuser = await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        owner = f'"{service}_owner"'
        # An administrator who is no superuser must be a member of a role to give it a database.
        joins = [] if is_superuser else [Step(f"GRANT {owner} TO CURRENT_USER")]
        made = Step(f'CREATE DATABASE "{database}" OWNER {owner}')
        inside = [Step(sql, database, is_ours=is_superuser) for sql in (give, take)]
        return [*joins, made, Step(close), Step(let_in), *inside]
    steps = []
    if await connection.fetchval(_OPEN, database):
        steps += [Step(close), Step(let_in)]  # what everybody may, these two may no longer
    elif await connection.fetchval(_SHUT, database, [f"{service}_app", f"{service}_relay"]):
        steps.append(Step(let_in))
    return [*steps, *await _of_languages(admin_url, database, service)]


_OPEN: Final = "SELECT bool_or(has_database_privilege('public', $1, each)) FROM unnest('{CONNECT,CREATE,TEMPORARY}'::text[]) each"
_SHUT: Final = """SELECT bool_or(coalesce(NOT has_database_privilege(rolname, $1, 'CONNECT'), true))
FROM unnest($2::text[]) each LEFT JOIN pg_roles ON rolname = each"""
_WRITTEN: Final = """SELECT has_language_privilege('public', lanname, 'USAGE') AS is_open,
    pg_has_role(lanowner, 'USAGE') AS is_ours
FROM pg_language WHERE lanname = 'plpgsql'"""


async def _of_languages(admin_url: str, database: str, service: str) -> list[Step]:
    """Let nobody but the owner write programs (`DO`) in there; what the owner wrote runs for whoever may call it.

    PostgreSQL only warns an administrator who is no superuser: on such a server it has to be done by who is.
    """
    connection = await _inside(admin_url, database)
    try:
        found = await connection.fetchrow(_WRITTEN)
    finally:
        await connection.close()
    if found is None or not found["is_open"]:
        return []
    return [Step(sql, database, is_ours=found["is_ours"]) for sql in closing_languages(service)]

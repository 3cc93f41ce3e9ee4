"""A tenant's rows in two databases of a service: all go along, nothing of others does, and its old cell decides no more."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from uuid import uuid4

import asyncpg
import pytest

from deploy.cells import doors, rows
from deploy.cells.errors import MoveError
from deploy.cells.moving import Way, emptied, moved
from deploy.cells.rows import Copied, Kept
from deploy.local.cells import CELLED
from libs.common.cells import MAIN
from libs.common.database import Database
from libs.common.errors import ElsewhereError
from libs.common.messaging.shell import is_elsewhere
from libs.common.tenancy import SETTING
from tests.integration.leavers import Leaver, leaving
from tests.shared.callers import message
from tests.shared.events import tenant_updated
from tests.shared.places import WITH_TENANTS, Place, Places, Templates, counted
from tests.shared.victims import tenant_of

MANY, NEW = 1_000_000, 300
AT_HOME = frozenset(
    {
        *("erasure", "operator_action", "outbox_event", "outbox_parked"),
        *("product_rebuild", "timeline_entry_rebuild"),
    }
)
"""Tables of tenants whose rows are not copied: what is on its way out, and what somebody is making anew."""
BY_THE_DOOR = frozenset({"tenant", "departure", "inbox_source", "inbox_source_range"})
"""What is moved with the opening of the door."""
STAYS = frozenset({"audit_entry", "audit_head", "tenant"}) | AT_HOME
"""Where something is still found of it in the cell that it left: that it is elsewhere, and who did what."""


class Pair:
    """A tenant with something in every table of one database, and another database of the same service."""

    def __init__(self, leaver: Leaver, there: Place) -> None:
        self.leaver, self.there = leaver, there
        self.here, self.tenant_id = leaver.victim.place, leaver.victim.tenant_id
        self.tables: list[Kept] = []
        self.last = Copied()

    async def open(self) -> None:
        for place in (self.here, self.there):
            admin = await place.as_admin()
            # What some rows refer to is not there: they were made for their columns' sake.
            for row in await admin.fetch("SELECT conrelid::regclass::text AS of, conname FROM pg_constraint WHERE contype = 'f'"):
                await admin.execute(f"ALTER TABLE {row['of']} DROP CONSTRAINT {row['conname']}")
            await admin.close()
        self.source, self.target = [await self._owner(place) for place in (self.here, self.there)]
        self.tables = await rows.tables(self.source, self.target, self.tenant_id)

    async def close(self) -> None:
        await self.source.close()
        await self.target.close()

    async def _owner(self, place: Place) -> asyncpg.Connection:
        return await asyncpg.connect(place.url("owner"), server_settings={SETTING: str(self.tenant_id), "TimeZone": "UTC"})

    async def made_equal(self) -> Copied:
        self.last = await rows.made_equal(self.source, self.target, self.tenant_id, self.tables, self.last.messages)
        return self.last

    async def copied(self) -> bool:
        """Whether there is as much of it there as here, but for what does not move, or not yet."""
        here, there = [await self.counts(place) for place in (self.here, self.there)]
        return there == {name: count for name, count in here.items() if name not in AT_HOME | BY_THE_DOOR}

    async def counts(self, place: Place) -> Mapping[str, int]:
        return {table: count for table, count in (await counted(place, self.tenant_id)).items() if count}


@pytest.fixture(params=CELLED)
async def pair(
    request: pytest.FixtureRequest, empty: Places, templates: Templates, fresh_prefix: Callable[[str], str]
) -> AsyncIterator[Pair]:
    there = templates.copy(request.param, fresh_prefix("east"))
    async with leaving(empty(request.param)) as leaver:
        pair = Pair(leaver, there)
        await pair.open()
        yield pair
        await pair.close()
    templates.drop([there])


async def test_every_table_that_keeps_tenants_goes_along(pair: Pair) -> None:
    there_are = {row["name"] for row in await pair.source.fetch(WITH_TENANTS)}
    assert {table.name for table in pair.tables} - {"inbox_message"} == there_are - AT_HOME - BY_THE_DOOR


async def test_what_has_changed_since_the_last_look_is_copied_and_nothing_else(pair: Pair) -> None:
    neighbour = await tenant_of(pair.leaver.victim.shell, pair.here.service)
    first = await pair.made_equal()
    assert await pair.copied()
    assert sum((await counted(pair.there, neighbour)).values()) == 0
    again = await pair.made_equal()
    assert (again.rows, again.tables, again.digest) == (0, [], first.digest)
    changing = [each for each in pair.tables if not (each.stands or each.stays)]
    admin = await pair.here.as_admin()
    await admin.execute("SET session_replication_role = replica")
    for table in changing:  # of each kind of row one is another now, or gone
        if "version" in table.columns:
            await admin.execute(f"UPDATE {table.name} SET version = version + 1 WHERE tenant_id = $1", pair.tenant_id)
        else:
            one = f"SELECT ctid FROM {table.name} WHERE tenant_id = $1 LIMIT 1"
            await admin.execute(f"DELETE FROM {table.name} WHERE ctid = ANY (ARRAY({one}))", pair.tenant_id)
    await admin.close()
    changed = await pair.made_equal()
    assert {*changed.tables} == {each.name for each in changing}
    assert await pair.copied()
    assert (await pair.made_equal()).digest == changed.digest != first.digest


@pytest.mark.long("a million rows: two minutes")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("pair", ["checkout"], indirect=True)
async def test_of_a_tenant_of_a_million_rows_only_what_is_new_is_copied_behind_the_closed_door(pair: Pair) -> None:
    admin = await pair.here.as_admin()
    await admin.execute("SET session_replication_role = replica")
    [entries] = [each for each in pair.tables if each.name == "timeline_entry"]
    same = ", ".join(each for each in entries.columns if each != "id")
    many = f"SELECT $2 || n, {same} FROM timeline_entry, generate_series(1, $3) n WHERE id = $1"
    more = f"INSERT INTO timeline_entry (id, {same}) {many}"
    one = await admin.fetchval("SELECT id FROM timeline_entry WHERE tenant_id = $1", pair.tenant_id)
    await admin.execute(more, one, "many-", MANY)
    pair.tables = await rows.tables(pair.source, pair.target, pair.tenant_id)
    looked: list[tuple[int, float]] = []
    for is_last in (False, False, True):
        if is_last:
            await doors.depart(pair.source, pair.tenant_id, "east", MAIN)
        began = time.monotonic()
        looked.append(((await pair.made_equal()).rows, round(time.monotonic() - began, 2)))
        await admin.execute(more, one, f"new-{len(looked)}-", NEW)
    await admin.close()
    assert await doors.arrive(pair.source, pair.target, pair.tenant_id) == []
    print(f"rows copied and seconds taken, before its door is closed and behind it: {looked}")
    (first, _), *later = looked
    assert first > MANY
    assert all(NEW <= count < MANY / 50 for count, _ in later), "a look brings what is new, and little beside it"


async def test_ids_of_messages_go_along_once_and_the_other_cells_own_stay(pair: Pair) -> None:
    for place, ids in ((pair.here, ["a", "b", "c"]), (pair.there, ["d"])):
        admin = await place.as_admin()
        await admin.execute(
            "INSERT INTO inbox_message (consumer, source, message_id, day) SELECT 'toy', '/test', each, current_date "
            "FROM unnest($1::text[]) each",
            ids,
        )
        await admin.close()
    await pair.made_equal()
    assert (await pair.made_equal()).tables == [], "what was brought is not brought again"
    admin = await pair.there.as_admin()
    known = await admin.fetch("SELECT message_id FROM inbox_message WHERE consumer = 'toy' ORDER BY 1")
    await admin.close()
    assert [row["message_id"] for row in known] == ["a", "b", "c", "d"]


async def test_its_old_cell_decides_nothing_more_and_in_the_end_has_nothing_of_it(pair: Pair) -> None:
    shell, neighbour = pair.leaver.victim.shell, await tenant_of(pair.leaver.victim.shell, pair.here.service)
    theirs = await counted(pair.here, neighbour)
    shell.cell = MAIN
    await shell.execute(message(tenant_updated(pair.tenant_id, version=8), pair.tenant_id))
    await pair.made_equal()
    await doors.depart(pair.source, pair.tenant_id, "east", MAIN)
    told = message(tenant_updated(pair.tenant_id, version=9, status="suspended"), pair.tenant_id)
    [answer] = await shell.execute_each([told])
    assert is_elsewhere(answer)
    with pytest.raises(ElsewhereError, match="east"):
        await shell.execute(told)
    assert (await doors.cell_of(pair.source, pair.tenant_id)) == ("east", 8), "what is said of it now is the other cell's to hear"
    assert await doors.arrive(pair.source, pair.target, pair.tenant_id) == []
    assert (await doors.cell_of(pair.target, pair.tenant_id)) == ("east", 8)
    assert await doors.empty(pair.source, pair.tenant_id, [table.name for table in pair.tables]) > 0
    assert (await pair.counts(pair.here)).keys() <= STAYS
    assert await counted(pair.here, neighbour) == theirs
    assert await doors.empty(pair.source, pair.tenant_id, [table.name for table in pair.tables]) == 0, "it was over"


async def test_who_moved_after_the_moment_to_which_all_was_restored_is_opened_where_its_rows_are(pair: Pair) -> None:
    """Identity knows by its topic that it moved, and of the move itself no database knows."""
    shell, service = pair.leaver.victim.shell, pair.here.service
    shell.cell = MAIN
    await shell.execute(message(tenant_updated(pair.tenant_id, version=8), pair.tenant_id))
    await _heard_of(pair, MAIN, 8)
    await pair.source.execute("DELETE FROM departure")  # it never left: the row was for its columns' sake
    had = await pair.counts(pair.here)
    await shell.execute(message(tenant_updated(pair.tenant_id, version=9, cell="east"), pair.tenant_id))
    switched: list[str] = []
    way = Way(tenant_id=pair.tenant_id, source="east", target=MAIN)
    other = Way(tenant_id=pair.tenant_id, source=MAIN, target="east")
    urls = {"east": pair.there.url("owner"), MAIN: pair.here.url("owner")}

    async def switch() -> None:
        switched.append(MAIN)

    with pytest.raises(MoveError, match="all there is of it"):
        await emptied(other, [service], lambda _, cell: urls[cell])
    with pytest.raises(MoveError, match="none of its rows are in east"):
        await moved(other, [service], lambda _, cell: urls[cell], version=9, switch=switch, say=print)
    moved_back = await moved(way, [service], lambda _, cell: urls[cell], version=9, switch=switch, say=print)
    assert (moved_back.rows, switched) == (0, [MAIN]), "nothing is brought over what is there"
    assert await pair.counts(pair.here) == had
    await shell.execute(message(tenant_updated(pair.tenant_id, version=10), pair.tenant_id))
    assert await doors.cell_of(pair.source, pair.tenant_id) == (MAIN, 10)


async def _heard_of(pair: Pair, cell: str, version: int) -> None:
    """The other cell has heard of the tenant, as one that is elsewhere."""
    await pair.target.execute(
        "INSERT INTO tenant (tenant_id, version, sequence, tenant_version, slug, status, currency, country, settings, cell) "
        "VALUES ($1, 1, 1, $2, '', 'elsewhere', '', '', '{}', $3)",
        pair.tenant_id,
        version,
        cell,
    )


async def test_where_it_went_is_told_to_itself_alone_and_changed_by_no_process(pair: Pair) -> None:
    await doors.depart(pair.source, pair.tenant_id, "east", MAIN)
    database = await Database.connect(pair.here.url("app"), application="test", size=1)
    for tenant_id, seen in ((pair.tenant_id, 1), (uuid4(), 0)):
        async with database.transaction([tenant_id]) as connection:
            assert await connection.fetchval("SELECT count(*) FROM departure") == seen
    for change in ("DELETE FROM departure", "UPDATE departure SET cell = 'west'"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.transaction([pair.tenant_id]) as connection:
                await connection.execute(change)
    await database.close()


async def test_a_service_that_has_a_newer_database_in_one_cell_moves_nobody(pair: Pair) -> None:
    admin = await pair.there.as_admin()
    await admin.execute("ALTER TABLE idempotency_key ADD COLUMN newer text")
    await admin.close()
    with pytest.raises(MoveError, match="idempotency_key"):
        await rows.tables(pair.source, pair.target, pair.tenant_id)

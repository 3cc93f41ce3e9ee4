"""Signing keys on a real database: several processes, one key that signs, and nobody who is refused by mistake."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import orjson
import pytest

from libs.common.auth import CLIENT, ROLES, Verifier
from libs.common.clock import PLATFORM
from libs.common.errors import ConflictError, NotFoundError, UnauthenticatedError, UnavailableError
from libs.common.keys import Keys
from libs.common.messaging.shell import Shell
from libs.common.settings import SettingsError
from services.identity import repository
from services.identity.api.issuer import Issuer
from services.identity.api.keyring import STALE_SECONDS, KeyRing
from services.identity.api.raised import Raised
from services.identity.api.seals import Seals
from services.identity.api.tokens import RefreshTokens
from services.identity.domain.access import Grant
from services.identity.domain.signing_key import KeyState
from tests.shared.callers import ISSUER, shell_of
from tests.shared.places import Place, Places
from tests.shared.roots import keys_of, none_revoked
from tests.shared.signing import MASTER_KEY, MONTH, ring_of

NEW = b"n" * 32
"""Another master key."""
GRANT = Grant(
    subject_id=uuid4(), client_id="cl", tenant_id=uuid4(), roles=(CLIENT,), permissions=ROLES[CLIENT], audience=("cart",)
)


@dataclass
class Process:
    """What of an API process has to do with keys."""

    ring: KeyRing
    keys: Keys
    shell: Shell

    async def token(self) -> str:
        return (await Issuer(self.ring, Raised(none_revoked()), address=ISSUER).answer(GRANT)).access_token


@dataclass
class Reader:
    """Another service: it hears what identity's outbox says, and asks nobody."""

    keys: Keys
    place: Place
    heard: int = 0

    async def hear(self) -> list[tuple[str, str]]:
        """Whatever is new; answers kids and states."""
        connection = await self.place.as_admin()
        rows = await connection.fetch("SELECT id, payload FROM outbox_event WHERE id > $1 ORDER BY id", self.heard)
        await connection.close()
        said = [orjson.loads(row["payload"]) for row in rows]
        for row, each in zip(rows, said, strict=True):
            self.heard = row["id"]
            if each["state"] == "revoked":
                self.keys.forget(each["kid"], each["certificate"])
            else:
                self.keys.learn(each["jwk"], each["certificate"])
        return [(each["kid"], each["state"]) for each in said]

    async def believes(self, token: str) -> bool:
        try:
            await Verifier(self.keys, none_revoked(), issuer=ISSUER, audience="cart").verify(token)
        except UnauthenticatedError:
            return False
        return True


@asynccontextmanager
async def _process(
    place: Place,
    *,
    lead: float = 0,
    period: timedelta = MONTH,
    seals: Seals | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Process]:
    async with shell_of(place, size=4) as shell:
        keys = keys_of(ISSUER)
        ring = ring_of(shell, keys, lead=lead, period=period, seals=seals, clock=clock)
        await ring.start()
        yield Process(ring, keys, shell)


async def _states(process: Process) -> list[str]:
    return sorted(str(key.state) for key in await process.ring.known())


@pytest.fixture
async def two(empty: Places) -> AsyncIterator[tuple[Process, Process, Reader]]:
    place = empty("identity")
    async with _process(place) as one, _process(place) as other:
        yield one, other, Reader(keys_of(ISSUER), place)


async def test_ten_processes_that_start_at_once_have_one_key_that_signs_and_one_that_will(empty: Places) -> None:
    place = empty("identity")
    async with AsyncExitStack() as stack:
        processes = await asyncio.gather(*(stack.enter_async_context(_process(place)) for _ in range(10)))
        assert await _states(processes[0]) == ["active", "next"]
        assert len({(await process.ring.mint()).kid for process in processes}) == 1
        made = {process.ring.refresh_tokens.issue(PLATFORM, PLATFORM).text for process in processes}
        assert len(made) == 1, "and a shopper may refresh with any of them"


async def test_what_signs_was_published_before_so_a_rotation_needs_nobody_to_hear_of_it(
    two: tuple[Process, Process, Reader],
) -> None:
    """The one that rotated may die at once, and its relay too: every token of every process is believed all the same."""
    one, other, reader = two
    await reader.hear()
    before = await one.token()
    for _ in range(3):
        previous, kid = await one.ring.rotate()
        assert previous != kid == (await one.ring.mint()).kid
        late = await other.ring.mint()
        assert late.kid == previous, "the other has not read yet, and signs with the old one"
        tokens = [before, await one.token(), await other.token()]
        assert [await reader.believes(token) for token in tokens] == [True, True, True]
        assert [state for _, state in await reader.hear()] == ["retired", "active", "next"]
        assert [await reader.believes(token) for token in tokens] == [True, True, True]
        await other.ring.known()
        assert (await other.ring.mint()).kid == kid
    assert await _states(other) == ["active", "next", *["retired"] * 3]
    assert {jwk["kid"] for jwk in await other.ring.jwks()} == {key.kid for key in await other.ring.known()}


async def test_of_many_who_rotate_at_once_one_does_and_a_rotation_that_dies_before_its_commit_did_not_happen(
    two: tuple[Process, Process, Reader],
) -> None:
    one, other, reader = two
    held = await one.ring.mint()
    connection = await reader.place.as_admin()
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT * FROM signing_key FOR UPDATE")
    dying = asyncio.create_task(other.ring.rotate())
    while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0.01)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    await transaction.rollback()
    await connection.close()
    assert (await _states(one), (await one.ring.mint()).kid) == (["active", "next"], held.kid)

    outcomes = await asyncio.gather(*(process.ring.rotate() for process in (one, other) * 4), return_exceptions=True)
    done = [each for each in outcomes if isinstance(each, tuple)]
    refused = [each for each in outcomes if not isinstance(each, tuple)]
    assert done
    assert {type(each) for each in refused} <= {ConflictError}
    assert await _states(one) == ["active", "next", *["retired"] * len(done)]


async def test_a_key_that_is_too_new_does_not_sign_and_one_that_has_signed_for_a_period_stops(empty: Places) -> None:
    place = empty("identity")
    async with _process(place, lead=3_600) as process:
        with pytest.raises(ConflictError) as refused:
            await process.ring.rotate()
        assert refused.value.code == "signing-key-too-new"
    connection = await place.as_admin()
    await connection.execute("UPDATE signing_key SET not_before = not_before - interval '40 days'")
    async with _process(place) as process:  # starting, it does what is due
        assert await _states(process) == ["active", "next", "retired"]
        await connection.execute("UPDATE signing_key SET not_after = now() WHERE state = 'retired'")
        await process.ring.known()
        await process.ring.keep_up()
        assert await _states(process) == ["active", "next", "revoked"]
        assert len(await process.ring.jwks()) == 2
    await connection.close()


async def test_a_revoked_key_is_believed_by_nobody_and_another_signs_at_once(two: tuple[Process, Process, Reader]) -> None:
    one, other, reader = two
    await reader.hear()
    stolen, token = (await one.ring.mint()).kid, await other.token()
    await one.ring.revoke(stolen)
    assert await _states(one) == ["active", "next", "revoked"]
    assert await reader.believes(await one.token()), "the next one was known before"
    assert (stolen, "revoked") in await reader.hear()
    assert not await reader.believes(token)
    with pytest.raises(UnauthenticatedError):
        await Verifier(one.keys, none_revoked(), issuer=ISSUER, audience="cart").verify(token)
    await other.ring.known()
    assert stolen not in {jwk["kid"] for jwk in await other.ring.jwks()}
    [next_one] = [key.kid for key in await one.ring.known() if key.state is KeyState.NEXT]
    await one.ring.revoke(next_one)
    assert await _states(one) == ["active", "next", "revoked", "revoked"]
    for kid, error in ((stolen, ConflictError), ("nobody", NotFoundError)):
        with pytest.raises(error):
            await one.ring.revoke(kid)


async def test_a_look_that_a_revocation_overtakes_has_the_revoked_key_sign_no_more(
    empty: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _process(empty("identity")) as process:
        read, has_read, goes_on = repository.signing_keys, asyncio.Event(), asyncio.Event()

        async def slowly(connection: Any) -> Any:
            found = await read(connection)
            has_read.set()
            await goes_on.wait()
            return found

        monkeypatch.setattr(repository, "signing_keys", slowly)
        looking = asyncio.create_task(process.ring.known())
        await has_read.wait()
        monkeypatch.setattr(repository, "signing_keys", read)
        stolen = (await process.ring.mint()).kid
        await process.ring.revoke(stolen)
        goes_on.set()
        await looking
        assert (await process.ring.mint()).kid != stolen


async def test_who_cannot_read_the_keys_signs_for_a_minute_and_then_no_more(empty: Places) -> None:
    """So it is known when the last token of a retired key was made."""
    at = 1_000.0
    async with _process(empty("identity"), clock=lambda: at) as process:
        await process.shell.database.close()
        at += STALE_SECONDS
        assert await process.token()
        at += 1
        with pytest.raises(UnavailableError):
            await process.token()


async def test_a_master_key_is_rotated_without_a_session_or_a_key_being_lost(empty: Places) -> None:
    place = empty("identity")
    async with _process(place, seals=Seals(MASTER_KEY)) as process:
        refresh = process.ring.refresh_tokens.issue(uuid4(), uuid4(), 7)
        token, kid = await process.token(), (await process.ring.mint()).kid
    with pytest.raises(SettingsError):
        async with _process(place, seals=Seals(NEW)):
            pass
    async with _process(place, seals=Seals(NEW, MASTER_KEY)) as process:
        assert (await process.ring.mint()).kid == kid
        assert process.ring.refresh_tokens.read(refresh.text) == refresh
        assert await process.ring.reseal() == (3, 0), "what signs, what will, and what refresh tokens are made with"
        assert await process.ring.reseal() == (0, 0)
    async with _process(place, seals=Seals(NEW)) as process:
        assert (await process.ring.mint()).kid == kid
        assert process.ring.refresh_tokens.read(refresh.text) == refresh
        assert await Reader(process.keys, place).believes(token)
    async with shell_of(place) as shell:
        assert await ring_of(shell, keys_of(ISSUER), seals=Seals(MASTER_KEY)).reseal() == (0, 3), (
            "said, not hidden, and nothing is overwritten"
        )


async def test_an_issuer_from_before_secrets_were_stored_goes_on_with_those_it_derived(empty: Places) -> None:
    """Also when its master key is rotated in the same step."""
    token = RefreshTokens(RefreshTokens.first_secret(MASTER_KEY)).issue(uuid4(), uuid4())
    async with _process(empty("identity"), seals=Seals(NEW, MASTER_KEY)) as process:
        assert process.ring.refresh_tokens.read(token.text) == token

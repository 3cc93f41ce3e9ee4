"""Identity's decisions: pure, so every one is tried without a database, a broker or a clock."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from libs.common.auth import CLIENT, GUEST, PLATFORM_OPERATOR, ROLES, SHOPPER, Verifier
from libs.common.clock import PLATFORM
from libs.common.errors import ConflictError, DeniedError, RejectedError, UnauthenticatedError
from libs.common.sealing import SealError
from services.identity.api.seals import Seals
from services.identity.api.tokens import RefreshTokens, TokenMint, jwk_of
from services.identity.domain import access, client, session, tenant
from services.identity.domain.client import Client, Secret
from services.identity.domain.session import GRACE, Refreshed, Session, SessionState
from services.identity.domain.tenant import PROVISIONERS, TRANSITIONS, Tenant, TenantStatus
from tests.shared.roots import keys_of, none_revoked

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TENANT_ID, SESSION_ID = uuid4(), uuid4()
MASTER_KEY = b"m" * 32
ISSUER = "https://id.example.test"


def _tenant(status: TenantStatus = TenantStatus.PROVISIONING, provisioned: tuple[str, ...] = ()) -> Tenant:
    return Tenant(
        tenant_id=TENANT_ID,
        version=1,
        slug="shop",
        name="Shop",
        status=status,
        currency="GBP",
        country="GB",
        admin_email="owner@shop.test",
        provisioned=provisioned,
    )


def _client(*secrets: str) -> Client:
    kept = tuple(Secret(id=uuid4(), digest=client.digest_of(secret), created_at=NOW) for secret in secrets)
    subject_id = uuid4()
    client_id = client.client_id_of(TENANT_ID, subject_id)
    return Client(tenant_id=TENANT_ID, id=client_id, subject_id=subject_id, name="till", scopes=("carts:read",), secrets=kept)


def _session(digest: str = "0") -> Session:
    return session.start(TENANT_ID, SESSION_ID, uuid4(), digest, NOW, is_guest=False)


@pytest.mark.parametrize("status", [TenantStatus.CLOSING, TenantStatus.ERASING, TenantStatus.ERASED])
def test_a_tenant_that_is_closing_changes_no_more(status: TenantStatus) -> None:
    with pytest.raises(ConflictError, match="tenant-status"):
        tenant.change(_tenant(status), "Another", {})


@pytest.mark.parametrize("order", list(permutations(PROVISIONERS)))
def test_a_tenant_becomes_active_exactly_once_and_only_when_the_last_service_has_spoken(order: tuple[str, ...]) -> None:
    """In whatever order the services speak, and however often each repeats itself."""
    current, events = _tenant(), []
    for service in (*order, *order):
        assert (current.status is TenantStatus.ACTIVE) == (set(current.provisioned) == set(PROVISIONERS))
        current, event = tenant.note_provisioned(current, service)
        events += [event] if event else []
    assert current.status is TenantStatus.ACTIVE
    assert [event.status for event in events] == ["active"]
    assert events[0].version == current.version + 1


@pytest.mark.parametrize("status", [status for status in TenantStatus if status is not TenantStatus.PROVISIONING])
def test_a_late_word_of_a_service_never_brings_back_a_tenant_that_has_moved_on(status: TenantStatus) -> None:
    """A suspended or closed tenant stays so, whatever arrives."""
    noted, event = tenant.note_provisioned(_tenant(status, ("cart", "checkout")), "payments")
    assert noted.status is status
    assert event is None


@pytest.mark.parametrize("start", TenantStatus)
@pytest.mark.parametrize("end", TenantStatus)
def test_only_the_moves_of_the_table_are_possible(start: TenantStatus, end: TenantStatus) -> None:
    """Every pair of states, legal or not."""
    if end in TRANSITIONS[start]:
        assert tenant.move(_tenant(start), end).status is end
    else:
        with pytest.raises(ConflictError):
            tenant.move(_tenant(start), end)


def test_the_event_of_a_tenant_carries_no_address_of_a_person() -> None:
    """Events are kept for ever and read by everybody."""
    assert "owner@shop.test" not in repr(tenant.updated(_tenant()))


def test_only_a_live_secret_of_a_present_client_authenticates() -> None:
    """Either of two; neither a removed one, nor its stored form, nor any once the client is gone."""
    machine = _client("first", "second")
    assert client.authenticates(machine, "first")
    assert client.authenticates(machine, "second")
    assert not client.authenticates(machine, machine.secrets[0].digest)
    assert not client.authenticates(client.remove_secret(machine, machine.secrets[0].id), "first")
    assert not client.authenticates(client.delete(machine, NOW), "second")
    assert not client.authenticates(replace(machine, deleted_at=NOW), "second")
    assert not client.authenticates(None, "first")


def test_a_client_has_room_for_two_secrets_and_no_third() -> None:
    """So that one can take over from the other, and no more are forgotten."""
    third = Secret(id=uuid4(), digest="d", created_at=NOW)
    with pytest.raises(ConflictError, match="too-many-secrets"):
        client.add_secret(_client("first", "second"), third)


@given(st.uuids(), st.uuids())
def test_a_client_id_names_its_tenant_and_nothing_that_looks_like_one_is_believed(tenant_id: UUID, subject_id: UUID) -> None:
    """The token endpoint knows nothing else to find the row by."""
    client_id = client.client_id_of(tenant_id, subject_id)
    assert client.tenant_of(client_id) == tenant_id
    for other in (client_id + "\n", client_id.upper(), client_id[:-1], "platform", f" {client_id}"):
        assert client.tenant_of(other) is None


def test_making_the_operator_again_changes_nothing_until_its_secret_does() -> None:
    """`migrate` runs at every start."""
    first = client.operator(None, PLATFORM, "a", ("x",), NOW)
    assert client.operator(first, PLATFORM, "a", ("x",), NOW + timedelta(days=1)) is first
    renewed = client.operator(first, PLATFORM, "b", ("x",), NOW)
    assert [secret.digest for secret in renewed.secrets] == ["b"]
    assert renewed.subject_id == first.subject_id


def test_a_token_that_is_used_twice_within_the_grace_has_one_successor_and_after_it_ends_the_session() -> None:
    """The owner whose answer was lost is let in; a copy that turns up later ends the session for both."""
    rotated, came_to = session.refresh(_session("0"), "0", "1", NOW)
    assert (came_to, rotated.digest) == (Refreshed.ROTATED, "1")
    again, came_to = session.refresh(rotated, "0", "1", NOW + GRACE)
    assert (came_to, again) == (Refreshed.REPEATED, rotated)
    ended, came_to = session.refresh(rotated, "0", "1", NOW + GRACE + timedelta(microseconds=1))
    assert (came_to, ended.state) == (Refreshed.REUSED, SessionState.ENDED)
    assert session.refresh(ended, "1", "2", NOW)[1] is Refreshed.REFUSED


def test_the_grace_is_only_for_the_last_token_and_no_session_outlives_its_end() -> None:
    """A token two generations old is a copy, however fresh; and refreshing never extends a session."""
    one, _ = session.refresh(_session("0"), "0", "1", NOW)
    two, _ = session.refresh(one, "1", "2", NOW)
    assert session.refresh(two, "0", "1", NOW)[1] is Refreshed.REUSED
    assert session.refresh(two, "2", "3", two.expires_at)[1] is Refreshed.REFUSED
    assert two.expires_at == _session().expires_at


@given(st.integers(0, 2**31), st.integers(0, 90), st.characters(codec="ascii"))
def test_a_refresh_token_that_was_touched_anywhere_is_not_ours(generation: int, position: int, character: str) -> None:
    """So a made-up one can neither load the database nor end somebody's session."""
    tokens = RefreshTokens(MASTER_KEY)
    token = tokens.issue(TENANT_ID, SESSION_ID, generation)
    assert tokens.read(token.text) == token
    assert tokens.successor(token) == tokens.issue(TENANT_ID, SESSION_ID, generation + 1)
    assert RefreshTokens(b"n" * 32).read(token.text) is None
    touched = token.text[:position] + character + token.text[position + 1 :]
    assert (tokens.read(touched) is None) == (touched != token.text)


def test_a_shopper_ref_is_the_same_subject_for_ever_and_another_in_every_tenant() -> None:
    """Nothing is looked up, so nothing can be lost; the value is pinned, for it must never change."""
    pinned = session.subject_of(UUID("01890000-0000-7000-8000-000000000001"), "customer:17850")
    assert pinned == UUID("c9f6318b-be87-5185-a481-5ce5db42bce5")
    assert session.subject_of(TENANT_ID, "customer:17850") not in {pinned, session.subject_of(TENANT_ID, "customer:17851")}


@pytest.mark.parametrize(
    ("scope", "resources", "code"),
    [
        ("carts:read tenants:manage", [], "invalid-scope"),
        (" ", [], "invalid-scope"),
        (None, ["cart", "billing"], "invalid-target"),
    ],
)
def test_a_request_can_narrow_a_grant_but_never_widen_it(scope: str | None, resources: list[str], code: str) -> None:
    """And asking for nothing at all is not the same as leaving it out."""
    allowed = frozenset({"carts:read", "carts:write"})
    with pytest.raises(RejectedError, match=code):
        access.narrow(allowed, access.AUDIENCES, scope=scope, resources=resources)
    narrowed = access.narrow(allowed, access.AUDIENCES, scope="carts:read", resources=["payments", "cart"])
    assert narrowed == (frozenset({"carts:read"}), ("cart", "payments"))
    assert access.narrow(allowed, access.AUDIENCES, scope=None, resources=[]) == (allowed, access.AUDIENCES)


def _verifier(private_key: ec.EllipticCurvePrivateKey, audience: str) -> Verifier:
    return Verifier(keys_of(ISSUER, jwk_of(private_key)), none_revoked(), issuer=ISSUER, audience=audience)


async def test_what_is_minted_is_what_every_service_verifies() -> None:
    """A shopper's, a machine's and the operator's token, each through the verifier that all services use."""
    private_key = ec.generate_private_key(ec.SECP256R1())
    mint = TokenMint(ISSUER, jwk_of(private_key)["kid"], private_key)
    now = datetime.now(UTC)
    shopper = access.of_session(_session(), SHOPPER, ROLES[SHOPPER])
    machine = access.of_client(_client(), CLIENT, ROLES[CLIENT])
    made = client.operator(None, PLATFORM, "a", ("tenants:manage",), NOW)
    operator = access.of_operator(made, PLATFORM_OPERATOR, ROLES[PLATFORM_OPERATOR])
    guest = access.of_session(replace(_session(), is_guest=True), SHOPPER, ROLES[SHOPPER])
    assert (guest.roles, guest.permissions) == ((SHOPPER, GUEST), shopper.permissions), "a guest is told from a shopper"
    for grant in (shopper, guest, machine, operator):
        token = mint.mint(grant, uuid4(), now)
        principal = await _verifier(private_key, "identity").verify(token)
        assert (principal.subject, principal.client_id) == (grant.subject_id, grant.client_id)
        assert (principal.permissions, principal.roles) == (grant.permissions, grant.roles)
        assert principal.tenant_id == (grant.tenant_id or PLATFORM)
    claims = jwt.decode(mint.mint(operator, uuid4(), now), options={"verify_signature": False})
    assert not {"tid", "sid"} & set(claims)
    at_the_cart = await _verifier(private_key, "cart").verify(mint.mint(operator, uuid4(), now))
    with pytest.raises(DeniedError):
        at_the_cart.demand("carts:read")
    with pytest.raises(UnauthenticatedError, match="expired"):
        await _verifier(private_key, "cart").verify(mint.mint(shopper, uuid4(), now - timedelta(minutes=6)))


def test_a_sealed_key_opens_only_under_its_own_master_key_and_key_id() -> None:
    """Nobody can swap two rows, and a stolen database signs nothing."""
    private_key, old, new = ec.generate_private_key(ec.SECP256R1()), Seals(MASTER_KEY), Seals(b"x" * 32, MASTER_KEY)
    sealed = old.seal_key(private_key, "kid")
    assert jwk_of(old.open_key(sealed, "kid")) == jwk_of(private_key)
    for kid, seals in (("other", old), ("kid", Seals(b"x" * 32))):
        with pytest.raises(SealError):
            seals.open_key(sealed, kid)
    anew = new.resealed(sealed, "kid")
    assert anew is not None
    assert (old.resealed(sealed, "kid"), new.resealed(anew, "kid")) == (None, None), "what is under the key in force stays"
    assert jwk_of(Seals(b"x" * 32).open_key(anew, "kid")) == jwk_of(private_key)

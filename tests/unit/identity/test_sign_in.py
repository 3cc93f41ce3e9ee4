"""Authorization codes and what comes of them: good once, for a minute, for whoever asked, with what only they know."""

import base64
import hashlib
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import MEMBER
from libs.common.errors import ConflictError, RejectedError
from services.identity.domain import access, client, session, sign_in
from services.identity.domain.client import Client, Secret
from services.identity.domain.member import MemberState
from services.identity.domain.role import BUILT_IN
from services.identity.domain.session import Refreshed, Session, SessionState
from services.identity.domain.sign_in import LIFETIME, REDIRECT, AuthorizationCode, Redeemed, digest_of, proves
from services.identity.domain.tenant import TenantStatus
from services.identity.handlers import IssueCode, ReadStanding, RedeemCode, RefreshSession
from tests.unit.identity.house import APP, SHOP, House
from tests.unit.memory import NOW, TENANT

VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
"""The pair of RFC 7636, appendix B."""
CODE_ID, SESSION_ID = uuid4(), uuid4()


def test_a_verifier_proves_the_challenge_that_it_was_hashed_to_and_no_other_text_does() -> None:
    assert proves(VERIFIER, CHALLENGE)
    for verifier in (VERIFIER[:-1], VERIFIER + "x", CHALLENGE, "", "é" * 43, "x" * 129):
        assert not proves(verifier, CHALLENGE)
    short = "x" * 42
    made = base64.urlsafe_b64encode(hashlib.sha256(short.encode()).digest()).rstrip(b"=").decode()
    assert not proves(short, made), "what can be guessed proves nothing"


@pytest.mark.parametrize(
    "uri", ["https://a.test", "https://a.test:8443/x?y=1", "http://127.0.0.1:5173/back", "http://localhost/"]
)
def test_an_application_may_be_answered_over_tls_or_on_ones_own_machine(uri: str) -> None:
    assert re.fullmatch(REDIRECT, uri)
    assert sign_in.is_redirect(uri, (uri,))
    assert not sign_in.is_redirect(f"{uri}/", (uri,))


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "http://a.test/",
            "https://",
            "https://u@a.test/",
            "https://a.test/#f",
            "javascript:1",
            "//a.test",
            "http://localhost.a.test/",
        ),
        *("https://a.test\\@b.test/", "https://a.test/ x", "http://127.0.0.1.a.test/", "custom:/x", "https://a.test/\n"),
    ],
)
def test_nowhere_else(uri: str) -> None:
    assert not re.fullmatch(REDIRECT, uri)


def _issued(house: House, *scopes: str, password: str | None = None) -> AuthorizationCode:
    person = house.member("viewer")
    command = IssueCode(
        code_id=CODE_ID,
        digest=digest_of("code"),
        member_id=person.id,
        client_id=APP.id,
        redirect_uri="https://a.test/",
        challenge=CHALLENGE,
        scopes=scopes,
        password=password or person.password,
    )
    code: AuthorizationCode = house.execute(command)
    return code


def _redeem(**changes: Any) -> RedeemCode:
    asked: dict[str, Any] = {"code_id": CODE_ID, "presented": digest_of("code"), "client_id": APP.id, "verifier": VERIFIER}
    asked |= {"redirect_uri": "https://a.test/", "session_id": SESSION_ID, "refresh_digest": "r", **changes}
    return RedeemCode(**asked)


def test_a_code_is_taken_once_and_coming_again_ends_what_it_was_taken_for() -> None:
    house = House()
    code = _issued(house, "orders:read")
    assert code.expires_at == NOW + LIFETIME == NOW + timedelta(minutes=1)
    wrong = ({"presented": "x"}, {"client_id": "other"}, {"redirect_uri": "https://a.test"}, {"verifier": "x" * 43})
    for changes in (*wrong, {"code_id": uuid4()}):
        assert house.execute(_redeem(**changes)) == (None, Redeemed.REFUSED), changes
    assert house.execute(_redeem(), now=NOW + LIFETIME) == (None, Redeemed.REFUSED)
    taken, came_to = house.execute(_redeem(), now=NOW + LIFETIME - timedelta(seconds=1))
    assert came_to is Redeemed.TAKEN
    assert (taken.subject_id, taken.client_id, taken.scopes, taken.is_guest) == (code.member_id, APP.id, ("orders:read",), False)
    ended, came_to = house.execute(_redeem(session_id=uuid4()))
    assert (came_to, ended.id) == (Redeemed.REUSED, SESSION_ID)
    assert house.get(Session, SESSION_ID).state is SessionState.ENDED
    assert house.epoch(SESSION_ID) is not None
    told = len(house.outbox)
    assert house.execute(_redeem())[1] is Redeemed.REUSED
    assert len(house.outbox) == told, "what is over is not ended again"


def test_no_code_is_issued_upon_a_password_that_is_another_by_now() -> None:
    with pytest.raises(RejectedError):
        _issued(House(), password="the hash before")


def test_a_refresh_token_is_of_the_application_that_it_was_given_to() -> None:
    house = House()
    _issued(house)
    house.execute(_redeem())

    def refresh(client_id: str | None) -> Refreshed:
        command = RefreshSession(session_id=SESSION_ID, presented="r", successor="s", client_id=client_id)
        came_to: Refreshed = house.execute(command)[1]
        return came_to

    assert [refresh("other"), refresh(None)] == [Refreshed.REFUSED] * 2
    assert refresh(APP.id) is Refreshed.ROTATED, "while the shop is still being set up"
    shoppers = session.start(TENANT, uuid4(), uuid4(), "r", NOW, is_guest=False)
    house.put(shoppers)
    for client_id, status in ((APP.id, TenantStatus.ACTIVE), (None, TenantStatus.PROVISIONING)):
        house.put(replace(SHOP, status=status))
        command = RefreshSession(session_id=shoppers.id, presented="r", successor="s", client_id=client_id)
        assert house.execute(command)[1] is Refreshed.REFUSED


def test_a_members_token_is_what_was_asked_for_of_what_application_and_roles_allow_by_now() -> None:
    house = House()
    person = house.member("support", house.role("own", "settings:read"))

    def granted(*asked: str) -> frozenset[str]:
        standing = house.execute(ReadStanding(member_id=person.id, client_id=APP.id))
        started = session.start(TENANT, SESSION_ID, person.id, "r", NOW, is_guest=False, client_id=APP.id, scopes=asked)
        grant = access.of_member(started, standing.client, MEMBER, standing.member.roles, standing.allowed)
        assert (grant.subject_id, grant.client_id, grant.tenant_id, grant.session_id) == (person.id, APP.id, TENANT, SESSION_ID)
        assert grant.roles == (MEMBER, "own", "support")
        return grant.permissions

    assert granted() == BUILT_IN["support"] | {"settings:read"}
    assert granted("orders:read", "ledger:read") == {"orders:read"}
    house.put(replace(APP, scopes=("orders:read", "settings:read", "ledger:read")))
    assert granted() == {"orders:read", "settings:read"}
    house.put(replace(APP, scopes=("ledger:read",)))
    assert granted() == set()


def test_nobody_stands_who_is_away_or_whose_application_or_tenant_is() -> None:
    house = House()
    person = house.member("viewer")
    asked = ReadStanding(member_id=person.id, client_id=APP.id)
    assert house.execute(asked).member == person
    for changed in (
        replace(person, state=MemberState.DEACTIVATED),
        client.delete(APP, NOW),
        replace(SHOP, status=TenantStatus.ERASING),
    ):
        kept = house.get(type(changed), changed.key)
        house.put(changed)
        assert house.execute(asked) is None
        house.put(kept)
    assert house.execute(replace(asked, member_id=uuid4())) is None
    assert house.execute(replace(asked, client_id="other")) is None
    house.put(replace(SHOP, status=TenantStatus.SUSPENDED))
    assert house.execute(asked).member == person, "and reads, where nothing new begins"


def test_an_application_in_a_browser_is_given_no_secret() -> None:
    app = Client(
        tenant_id=TENANT, id="a", subject_id=UUID(int=1), name="a", scopes=(), secrets=(), redirect_uris=("https://a.test/",)
    )
    secret = Secret(id=UUID(int=2), digest="d", created_at=NOW)
    with pytest.raises(ConflictError, match="client-is-public"):
        client.add_secret(app, secret)
    assert client.add_secret(replace(app, redirect_uris=()), secret).secrets == (secret,)

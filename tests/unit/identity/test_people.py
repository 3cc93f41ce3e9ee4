"""A tenant's staff, decided in memory: what is granted, counted and taken away, and that nothing else is."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.auth import MEMBER, PERMISSIONS, PLATFORM_PERMISSIONS, ROLES
from libs.common.errors import CartwrightError, ConflictError, NotFoundError, RejectedError
from services.identity.domain import invitation, member, role, staff
from services.identity.domain.client import delete
from services.identity.domain.invitation import LIFETIME, Invitation, InvitationState, Token, digest_of
from services.identity.domain.member import Member, MemberState
from services.identity.domain.revocation import Epoch
from services.identity.domain.role import BUILT_IN, DESCRIPTIONS, OWNER, RESERVED, Role
from services.identity.domain.staff import Staff
from services.identity.domain.tenant import TenantStatus
from services.identity.handlers import (
    ChangeMember,
    ChangeRole,
    CreateInvitation,
    CreateRole,
    DeleteRole,
    Granter,
    RemoveMember,
    ResendInvitation,
    RevokeInvitation,
)
from services.identity.handlers.roles import MANY
from tests.unit.identity.house import APP, EVERYTHING, SHOP, THE_PLATFORM, House
from tests.unit.memory import NOW, TENANT


def by(who: Member, *grantable: str) -> Granter:
    return Granter(tenant_id=TENANT, client_id="app", grantable=grantable or EVERYTHING, subject_id=who.id)


def refused(code: str, house: House, command: Any) -> None:
    before = dict(house.rows)
    with pytest.raises(CartwrightError) as error:
        house.execute(command)
    assert error.value.code == code
    assert house.rows == before


def test_what_an_owner_may_is_all_that_a_tenant_may_and_no_role_may_more() -> None:
    assert BUILT_IN[OWNER] == PERMISSIONS - PLATFORM_PERMISSIONS == ROLES[MEMBER]
    assert BUILT_IN["admin"] == BUILT_IN[OWNER] - {"provider-accounts:write", "exports:read"}
    assert BUILT_IN.keys() == DESCRIPTIONS.keys() == {OWNER, "admin", "support", "finance", "fulfilment", "viewer"}
    changing = {each for each in PERMISSIONS if not each.endswith(":read")}
    seen = {"carts:read", "products:read", "checkouts:read", "orders:read", "stock:read", "payments:read", "disputes:read"}
    assert BUILT_IN["viewer"] == seen | {"ledger:read", "settings:read"}
    assert BUILT_IN["fulfilment"] == {"products:read", "stock:read", "orders:read", "orders:write"}
    assert BUILT_IN["support"] - BUILT_IN["viewer"] == {"orders:write", "orders:refund"}
    money = {"orders:refund", "payments:capture", "payments:void", "payments:resolve", "refunds:write"}
    assert BUILT_IN["finance"] & changing == money
    assert ROLES.keys() | {"guest"} == RESERVED


def test_roles_add_up_and_one_that_is_unknown_deleted_or_widened_by_hand_allows_nothing_more() -> None:
    packer = Role(tenant_id=TENANT, name="packer", description="", permissions=("orders:write", "ops:repair"))
    assert role.allowed(["viewer", "packer"], {"packer": packer}) == BUILT_IN["viewer"] | {"orders:write"}
    for custom in ({"packer": None}, {}, {"packer": replace(packer, deleted_at=NOW)}):
        assert role.allowed(["packer"], custom) == set()
        with pytest.raises(RejectedError, match="role-unknown"):
            role.demand_known(["viewer", "packer"], custom)
    role.demand_known(["viewer", "packer"], {"packer": packer})
    shadow = replace(packer, name="viewer", permissions=EVERYTHING)
    assert role.allowed(["viewer"], {"viewer": shadow}) == BUILT_IN["viewer"], "a row of a built-in name says nothing"
    for name in (*BUILT_IN, *RESERVED):
        with pytest.raises(ConflictError, match="role-taken"):
            role.create(None, replace(packer, name=name))
    with pytest.raises(ConflictError, match="role-taken"):
        role.create(packer, packer)
    gone = role.delete(packer, 0, NOW)
    assert (gone.permissions, gone.deleted_at, gone.is_gone) == ((), NOW, True)
    assert role.create(gone, replace(packer, description="d")) == replace(packer, description="d")
    assert role.change(packer, "d", None) == replace(packer, description="d")
    assert role.change(packer, None, ["b", "a", "b"]) == replace(packer, permissions=("a", "b"))
    with pytest.raises(ConflictError, match="role-in-use"):
        role.delete(packer, 1, NOW)


def test_one_grants_what_ones_token_client_and_roles_all_have_at_this_moment_and_nothing_else() -> None:
    house = House()
    admin, owner = house.member("admin"), house.member(OWNER)
    house.role("payee", "provider-accounts:write")
    house.role("reader", "orders:read")

    def new(granter: Granter, *permissions: str) -> CreateRole:
        return CreateRole(name="new", description="", permissions=permissions, granter=granter)

    beyond = "scope-not-grantable"
    for command in (
        new(by(admin), "provider-accounts:write"),
        new(by(owner, "orders:read"), "orders:write"),
        new(by(owner), "tenants:manage"),
        ChangeMember(member_id=admin.id, roles=("admin", "payee"), state=None, granter=by(admin)),
        ChangeMember(member_id=owner.id, roles=("viewer",), state=None, granter=by(admin)),
        ChangeMember(member_id=owner.id, roles=None, state=MemberState.DEACTIVATED, granter=by(admin)),
        RemoveMember(member_id=owner.id, granter=by(admin)),
        ChangeRole(name="payee", description="d", permissions=(), granter=by(admin), holders=(), staff_version=0),
    ):
        refused(beyond, house, command)
    for roles in ((OWNER,), ("payee",), ("viewer", "payee")):
        with pytest.raises(RejectedError, match=beyond):
            house.invited(*roles, granter=by(admin))
    asked = house.invited(OWNER)
    token = Token(nonce="m", digest=digest_of("u"))
    refused(beyond, house, ResendInvitation(invitation_id=asked.id, token=token, letter=None, granter=by(admin)))
    refused(beyond, house, RevokeInvitation(invitation_id=asked.id, granter=by(admin)))
    house.put(replace(APP, version=2, scopes=("orders:read",)))
    refused(beyond, house, new(by(owner), "orders:write"))
    house.execute(new(by(owner), "orders:read"))
    house.put(delete(replace(APP, version=3), NOW))
    refused(beyond, house, replace(new(by(owner), "orders:read"), name="newer"))
    house.put(APP, replace(owner, version=9, state=MemberState.DEACTIVATED))
    refused(beyond, house, replace(new(by(owner), "orders:read"), name="newer"))


def test_what_takes_something_away_ends_tokens_and_what_gives_or_changes_nothing_ends_none() -> None:
    house = House()
    house.member(OWNER)
    house.role("own", "orders:read", "orders:write")
    person = house.member("own")

    def change(roles: tuple[str, ...] | None, state: MemberState | None = None) -> bool:
        house.rows.pop((Epoch, TENANT, str(person.id)), None)
        house.execute(ChangeMember(member_id=person.id, roles=roles, state=state, granter=THE_PLATFORM))
        return house.epoch(person.id) is not None

    def edit(*permissions: str) -> bool:
        house.rows.pop((Epoch, TENANT, str(person.id)), None)
        version = house.get(Staff, TENANT).version
        command = ChangeRole(
            name="own",
            description=None,
            permissions=permissions,
            granter=THE_PLATFORM,
            holders=(person.id,),
            staff_version=version,
        )
        house.execute(command)
        return house.epoch(person.id) is not None

    version = house.get(Member, person.id).version
    assert not change(("own",))
    assert house.get(Member, person.id).version == version, "to be as one is, is no change"
    refused("role-unknown", house, ChangeMember(member_id=person.id, roles=("none",), state=None, granter=THE_PLATFORM))
    assert [change(("own",)), change(("own", "viewer")), change(("viewer",)), change(("own",))] == [False, False, True, True]
    assert [change(None, MemberState.DEACTIVATED), change(None, MemberState.ACTIVE)] == [True, False]
    assert [edit("orders:read", "orders:write", "stock:read"), edit("orders:read")] == [False, True]
    late = ChangeRole(name="own", description=None, permissions=(), granter=THE_PLATFORM, holders=(), staff_version=1)
    refused("staff-changed", house, late)
    version = house.get(Staff, TENANT).version
    few = replace(late, permissions=(), holders=tuple(uuid4() for _ in range(MANY)), staff_version=version)
    kept = house.get(Role, "own")
    house.execute(few)
    assert (house.get(Epoch, str(TENANT)), house.epoch(few.holders[-1]) is not None) == (None, True)
    house.put(replace(kept, version=kept.version + 1))
    house.execute(replace(late, holders=tuple(uuid4() for _ in range(MANY + 1)), staff_version=version))
    assert house.get(Epoch, str(TENANT)).kind == "tenant", "of so many holders not each is told of"
    house.rows.pop((Epoch, TENANT, str(person.id)), None)
    removed = house.execute(RemoveMember(member_id=person.id, granter=THE_PLATFORM))
    assert house.epoch(person.id) is not None
    assert (removed.roles, removed.password, removed.deleted_at, removed.is_gone) == ((), None, NOW, True)
    refused("member-not-found", house, RemoveMember(member_id=person.id, granter=THE_PLATFORM))
    assert {each.event.TYPE for each in house.outbox} == {"revocation.raised", "invitation.created"}


Step = tuple[int, int, int]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), max_size=40))
def test_whatever_becomes_of_people_what_is_counted_is_so_and_somebody_owns_the_tenant(
    steps: list[Step],
) -> None:
    house = House()
    names = [(OWNER,), ("own",), ("own", OWNER), ("viewer",)]
    house.role("own", "orders:read")
    people, asked = [house.member(OWNER)], [house.invited("own")]
    for what, whom, which in steps:
        person, invited = people[whom % len(people)], asked[whom % len(asked)]
        commands: list[Any] = [
            ChangeMember(member_id=person.id, roles=names[which], state=None, granter=THE_PLATFORM),
            ChangeMember(member_id=person.id, roles=None, state=[*MemberState][which % 2], granter=THE_PLATFORM),
            RemoveMember(member_id=person.id, granter=THE_PLATFORM),
            RevokeInvitation(invitation_id=invited.id, granter=THE_PLATFORM),
        ]
        try:
            if what < len(commands):
                house.execute(commands[what])
            elif what == len(commands):
                asked.append(house.invited(*names[which]))
            else:
                people.append(house.accept(invited.id))
        except (ConflictError, NotFoundError, RejectedError):
            pass
        members = [row for row in house.rows.values() if isinstance(row, Member)]
        open_ones = [row for row in house.rows.values() if isinstance(row, Invitation) and row.state is InvitationState.OPEN]
        counted = house.get(Staff, TENANT)
        owners = sum(each.state is MemberState.ACTIVE and OWNER in each.roles for each in members)
        assert counted.owners == owners >= 1
        uses = sum("own" in each for each in [*(each.roles for each in members), *(each.roles for each in open_ones)])
        assert counted.uses == ({"own": uses} if uses else {})
        if uses:
            refused("role-in-use", house, DeleteRole(name="own"))


def test_the_last_owner_stays_whatever_is_done_to_them() -> None:
    house = House()
    owner, other = house.member(OWNER), house.member("admin")
    last = [
        ChangeMember(member_id=owner.id, roles=("admin",), state=None, granter=by(owner)),
        ChangeMember(member_id=owner.id, roles=None, state=MemberState.DEACTIVATED, granter=by(owner)),
        RemoveMember(member_id=owner.id, granter=by(owner)),
    ]
    for command in last:
        refused("last-owner", house, command)
    house.execute(DeleteRole(name=house.role("unused", "orders:read")))
    house.execute(ChangeMember(member_id=other.id, roles=(OWNER,), state=MemberState.DEACTIVATED, granter=by(owner)))
    for command in last:
        refused("last-owner", house, command)
    house.execute(ChangeMember(member_id=other.id, roles=None, state=MemberState.ACTIVE, granter=by(owner)))
    house.execute(last[2])
    assert house.get(Staff, TENANT).owners == 1
    assert staff.change_member(Staff(tenant_id=TENANT), None, other).owners == 0, "before there is an owner, none is missed"


def test_an_invitation_is_taken_once_in_time_with_its_newest_token_and_in_an_open_house() -> None:
    house = House()
    asked = house.invited("viewer", email="Ada@Shop.test")
    assert (asked.email, asked.email_key, asked.expires_at) == ("Ada@Shop.test", "ada@shop.test", NOW + LIFETIME)
    with pytest.raises(ConflictError, match="already-open"):
        house.execute(replace(_again(asked), granter=THE_PLATFORM))
    with pytest.raises(ConflictError, match="email-taken"):
        house.execute(replace(_again(asked), invitation_id=uuid4(), member_id=uuid4()))

    def not_valid(invitation_id: UUID, token: str = "t", **circumstances: Any) -> None:
        with pytest.raises(RejectedError, match=r"^invitation-not-valid: this invitation is not valid; ask for another$"):
            house.accept(invitation_id, token, **circumstances)

    not_valid(asked.id, "other")
    not_valid(uuid4())
    not_valid(asked.id, now=NOW + LIFETIME)
    for status in (TenantStatus.SUSPENDED, TenantStatus.CLOSING, TenantStatus.ERASING):
        house.put(replace(SHOP, status=status))
        not_valid(asked.id)
    house.put(SHOP)
    over = house.execute(_again(asked), now=NOW + LIFETIME)
    assert (over.id, over.expires_at, over.roles) == (asked.id, NOW + 2 * LIFETIME, ("support",))
    newer = ResendInvitation(
        invitation_id=asked.id, token=Token(nonce="m", digest=digest_of("u")), letter="sealed", granter=THE_PLATFORM
    )
    house.execute(newer)
    kept = house.get(Invitation, asked.id)
    assert (kept.nonce, kept.digest, house.outbox[-1].event) == ("m", digest_of("u"), invitation.created(kept, "sealed"))
    not_valid(asked.id, "t")
    joined = house.accept(asked.id, "u", now=NOW + LIFETIME - timedelta(seconds=1))
    assert (joined.email_key, joined.roles, joined.state, joined.password) == ("ada@shop.test", ("support",), "active", "hash")
    not_valid(asked.id, "u")
    refused("invitation-state", house, newer)
    refused("invitation-state", house, RevokeInvitation(invitation_id=asked.id, granter=THE_PLATFORM))
    withdrawn = house.invited("viewer")
    house.execute(RevokeInvitation(invitation_id=withdrawn.id, granter=THE_PLATFORM))
    not_valid(withdrawn.id)
    house.put(replace(SHOP, status=TenantStatus.SUSPENDED))
    refused("tenant-status", house, replace(_again(asked), invitation_id=uuid4()))


def _again(asked: Invitation) -> CreateInvitation:
    token = Token(nonce="n", digest=digest_of("t"))
    return CreateInvitation(
        invitation_id=asked.id, email=asked.email, roles=("support",), token=token, letter=None, granter=THE_PLATFORM
    )


def test_a_removed_member_is_nothing_more_and_others_move_as_the_table_says() -> None:
    person = House().member("viewer")
    gone = member.remove(person, NOW)
    for state in (MemberState.ACTIVE, MemberState.DEACTIVATED):
        with pytest.raises(ConflictError, match="member-state"):
            member.move(gone, state)
    assert member.move(gone, MemberState.REMOVED) is gone
    idle = member.change(person, None, MemberState.DEACTIVATED)
    assert (idle.is_active, idle.is_gone, person.is_active) == (False, False, True)
    assert member.change(idle, ["viewer", "admin", "viewer"], MemberState.ACTIVE).roles == ("admin", "viewer")

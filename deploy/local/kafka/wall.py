"""The broker as a wall: brings users and rights of a cluster to what `deploy/topics.yaml` says, no more and no less."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.local.access import Access, Acl

if TYPE_CHECKING:
    from deploy.local.kafka.admin import KafkaAdmin


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cluster lacks, and what its principals can do there that nobody granted them."""

    missing: frozenset[Acl]
    surplus: frozenset[Acl]

    def lines(self) -> Iterator[str]:
        """Every change, as `kafka-acls.sh` would be told of it."""
        for sign, acls in (("+", self.missing), ("-", self.surplus)):
            yield from (f"{sign} {acl}" for acl in sorted(map(str, acls)))


async def plan(admin: "KafkaAdmin", access: Access, prefix: str = "", *, anonymous: bool = False) -> Plan:
    """Compare. Of a prefixed deployment only what bears its prefix counts: the cluster may have others."""
    wanted, found = access.acls(prefix, anonymous=anonymous), await admin.acls()
    ours = {acl for acl in found if acl.principal in access.users() and acl.name.startswith(prefix)}
    return Plan(frozenset(wanted - found), frozenset(ours - wanted))


async def provide_rights(options: Mapping[str, Any], access: Access, prefix: str = "", *, changes: bool) -> Plan:
    """Have exactly these rights, and answer what was otherwise; unless there shall be `changes`, only answer."""
    from deploy.local.kafka.admin import kafka_admin  # aiokafka is loaded where it is needed

    async with kafka_admin(**options) as admin:
        change = await plan(admin, access, prefix)
        if changes:
            await admin.revoke(change.surplus)
            await admin.grant(change.missing)
    return change


async def provide_users(options: Mapping[str, Any], users: Mapping[str, str], *, changes: bool) -> list[str]:
    """Have users with these secrets, by the mechanism that `options` come in with, and answer whom the broker did not let in."""
    from deploy.local.kafka.admin import kafka_admin  # aiokafka is loaded where it is needed

    async with kafka_admin(**options) as admin:
        lacking = {user: secret for user, secret in users.items() if not await admin.lets_in(user, secret)}
        if changes:
            await admin.put_users(lacking, options["sasl_mechanism"])
    return [*lacking]


async def raise_wall(
    options: Mapping[str, Any],
    access: Access,
    *,
    users: Mapping[str, str],
    prefix: str = "",
    anonymous: bool = False,
) -> Plan:
    """Have these users with their secrets, and exactly these rights; answers which it changed. Doing it again changes none.

    `options` are those of an aiokafka client that may change both.
    """
    from deploy.local.kafka.admin import kafka_admin  # aiokafka is loaded where it is needed

    async with kafka_admin(**options) as admin:
        await admin.put_users(users)
        change = await plan(admin, access, prefix, anonymous=anonymous)
        await admin.revoke(change.surplus)
        await admin.grant(change.missing)
    return change

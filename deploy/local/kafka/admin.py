"""What aiokafka's administrator cannot ask of a broker: many rights in one request, and users with their secrets.

Written as its own requests are, on the protocol's public description; it has structures for rights, one a request, and
none for users.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final

from aiokafka import errors as kafka
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol import types
from aiokafka.protocol.admin import CreateAclsRequest_v1, DeleteAclsRequest_v1, DescribeAclsRequest_v1
from aiokafka.protocol.api import Request, RequestStruct, Response

from deploy.local.access import Acl
from deploy.local.errors import StackError
from deploy.local.principals import MECHANISM
from libs.common.messaging.login import refused_at

_ANY: Final = 1
_SCRAM: Final = {"SCRAM-SHA-256": (1, "sha256"), "SCRAM-SHA-512": (2, "sha512")}
"""The number of each mechanism, and what it hashes with."""
_ITERATIONS: Final = 4096
"""Kafka's least. What they would slow down is guessing, and there is nothing to guess in a secret of 256 random bits."""
_SALT_BYTES: Final = 16
_SECURITY_DISABLED: Final = 54


class _DescribeAcls(Request[DescribeAclsRequest_v1]):  # type: ignore[misc]  # aiokafka has no types
    """Every right there is."""

    API_KEY = 29

    def build(self, request_struct_class: type[DescribeAclsRequest_v1]) -> DescribeAclsRequest_v1:
        return request_struct_class(_ANY, None, _ANY, None, None, _ANY, _ANY)


class _CreateAcls(Request[CreateAclsRequest_v1]):  # type: ignore[misc]  # as above
    """Grant all of these."""

    API_KEY = 30

    def __init__(self, acls: Iterable[Acl]) -> None:
        self._rows = [_row(acl) for acl in acls]

    def build(self, request_struct_class: type[CreateAclsRequest_v1]) -> CreateAclsRequest_v1:
        return request_struct_class(self._rows)


class _DeleteAcls(Request[DeleteAclsRequest_v1]):  # type: ignore[misc]  # as above
    """Revoke exactly these: every member of a filter is given."""

    API_KEY = 31

    def __init__(self, acls: Iterable[Acl]) -> None:
        self._rows = [_row(acl) for acl in acls]

    def build(self, request_struct_class: type[DeleteAclsRequest_v1]) -> DeleteAclsRequest_v1:
        return request_struct_class(self._rows)


class _AlterUserScramCredentialsResponse_v0(Response):  # type: ignore[misc]  # noqa: N801 - named as the library names them
    API_KEY = 51
    API_VERSION = 0
    SCHEMA = types.Schema(
        ("throttle_time_ms", types.Int32),
        (
            "results",
            types.CompactArray(
                ("user", types.CompactString("utf-8")),
                ("error_code", types.Int16),
                ("error_message", types.CompactString("utf-8")),
                ("tags", types.TaggedFields),
            ),
        ),
        ("tags", types.TaggedFields),
    )


class _AlterUserScramCredentialsRequest_v0(RequestStruct):  # type: ignore[misc]  # noqa: N801 - as above
    FLEXIBLE_VERSION: ClassVar[bool] = True
    API_KEY = 51
    API_VERSION = 0
    RESPONSE_TYPE = _AlterUserScramCredentialsResponse_v0
    SCHEMA = types.Schema(
        (
            "deletions",
            types.CompactArray(("name", types.CompactString("utf-8")), ("mechanism", types.Int8), ("tags", types.TaggedFields)),
        ),
        (
            "upsertions",
            types.CompactArray(
                ("name", types.CompactString("utf-8")),
                ("mechanism", types.Int8),
                ("iterations", types.Int32),
                ("salt", types.CompactBytes),
                ("salted_password", types.CompactBytes),
                ("tags", types.TaggedFields),
            ),
        ),
        ("tags", types.TaggedFields),
    )


class _PutUsers(Request[_AlterUserScramCredentialsRequest_v0]):  # type: ignore[misc]  # as above
    """Make these users, or give them these secrets. What is sent is salted and hashed, never the secret itself."""

    API_KEY = 51

    def __init__(self, users: Mapping[str, str], mechanism: str) -> None:
        number, hashing = _SCRAM[mechanism]
        self._rows: list[tuple[Any, ...]] = [
            (user, number, _ITERATIONS, *_salted(secret, hashing), {}) for user, secret in users.items()
        ]

    def build(self, request_struct_class: type[_AlterUserScramCredentialsRequest_v0]) -> _AlterUserScramCredentialsRequest_v0:
        return request_struct_class([], self._rows, {})


class KafkaAdmin:
    """An administrator of users and rights."""

    def __init__(self, client: AIOKafkaClient, login: Mapping[str, Any]) -> None:
        """Borrow a client that is connected, and how it came in."""
        self._client, self._login = client, login

    async def acls(self) -> set[Acl]:
        """Every right that anybody has. Raises StackError where the broker asks nobody who he is."""
        answer = await self._ask(_DescribeAcls())
        _require(answer.error_code, answer.error_message)
        return {
            Acl(principal, permission, operation, resource, pattern, name, host)
            for resource, name, pattern, granted in answer.resources
            for principal, host, operation, permission in granted
        }

    async def grant(self, acls: Collection[Acl]) -> None:
        """Give these rights; one that is there stays."""
        if acls:
            for code, reason in (await self._ask(_CreateAcls(acls))).creation_responses:
                _require(code, reason)

    async def revoke(self, acls: Collection[Acl]) -> None:
        """Take these rights away."""
        if acls:
            for code, reason, *_ in (await self._ask(_DeleteAcls(acls))).filter_responses:
                _require(code, reason)

    async def put_users(self, users: Mapping[str, str], mechanism: str = MECHANISM) -> None:
        """Make users of these names and secrets, or give those that are there their secret anew."""
        if users:
            for _, code, reason, _ in (await self._ask(_PutUsers(users, mechanism))).results:
                _require(code, reason)

    async def lets_in(self, user: str, secret: str) -> bool:
        """Whether the broker takes this secret of this user, where we came in ourselves."""
        broker = self._client.cluster.broker_metadata(self._client.get_random_node())
        who = {"sasl_plain_username": user, "sasl_plain_password": secret}
        return await refused_at(broker.host, broker.port, {**self._login, **who}) is None

    async def _ask(self, request: Any) -> Any:
        node = self._client.get_random_node()
        await self._client.ready(node)
        return await self._client.send(node, request)


@asynccontextmanager
async def kafka_admin(bootstrap_servers: str, **options: Any) -> AsyncIterator[KafkaAdmin]:
    """Yield an administrator. Raises StackError when the broker does not take the request, or is not there."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers, **options)
    try:
        await client.bootstrap()
        yield KafkaAdmin(client, options)
    except (kafka.KafkaError, OSError) as error:
        raise StackError(f"Kafka at {bootstrap_servers} cannot be administered: {error}") from error
    finally:
        await client.close()


def _row(acl: Acl) -> tuple[Any, ...]:
    return (acl.resource, acl.name, acl.pattern, acl.principal, acl.host, acl.operation, acl.permission)


def _salted(secret: str, hashing: str) -> tuple[bytes, bytes]:
    salt = secrets.token_bytes(_SALT_BYTES)
    return salt, hashlib.pbkdf2_hmac(hashing, secret.encode(), salt, _ITERATIONS)


def _require(code: int, reason: str | None) -> None:
    if code == _SECURITY_DISABLED:
        raise StackError("this Kafka keeps no rights: it needs an authorizer (authorizer.class.name)")
    if code:
        raise StackError(f"Kafka refuses to change users or rights: {reason or kafka.for_code(code).__name__}")

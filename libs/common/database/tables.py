"""How tables are described: what every aggregate's has, and columns of one type in one line."""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Constraint,
    DateTime,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TextClause,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.cells import MAIN

MOMENT: Final = DateTime(timezone=True)


def required(kind: Any, *names: str, default: str | TextClause | None = None) -> Iterator[Column[Any]]:
    """Columns of this type that always hold something; `default` is what rows of before they were there have."""
    return (Column(name, kind, nullable=False, server_default=default) for name in names)


def optional(kind: Any, *names: str) -> Iterator[Column[Any]]:
    """Columns of this type that may hold nothing."""
    return (Column(name, kind) for name in names)


def aggregate(metadata: MetaData, name: str, key: str, *rest: Column[Any] | Constraint | Index, kind: Any = Uuid) -> Table:
    """A table of aggregates: the columns that each has, and its own. The tenant leads the key."""
    own_key = () if key == "tenant_id" else required(kind, key)
    return Table(
        name,
        metadata,
        *required(Uuid, "tenant_id"),
        *own_key,
        *required(BigInteger, "version", "sequence"),
        *rest,
        PrimaryKeyConstraint(*dict.fromkeys(("tenant_id", key)), name=f"{name}_pkey"),
    )


def tenant_table(metadata: MetaData) -> Table:
    """Where a service other than identity keeps what it knows of its tenants (`tenancy.Tenant`)."""
    texts, cell = required(Text, "slug", "status", "currency", "country"), required(Text, "cell", default=MAIN)
    return aggregate(
        metadata, "tenant", "tenant_id", *required(BigInteger, "tenant_version"), *texts, *cell, *required(JSONB, "settings")
    )

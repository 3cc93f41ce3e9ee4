"""What the tables of this service belong to, and the columns that each of its aggregates has."""

from sqlalchemy import BigInteger, Column, Constraint, Index, MetaData, PrimaryKeyConstraint, Table, Uuid

METADATA = MetaData()


def aggregate(name: str, key: Column[object], *rest: Column[object] | Constraint | Index) -> Table:
    """A table of aggregates: the columns that each has, then its own."""
    return Table(
        name,
        METADATA,
        Column("tenant_id", Uuid, nullable=False),
        key,
        Column("version", BigInteger, nullable=False),
        Column("sequence", BigInteger, nullable=False),
        *rest,
        PrimaryKeyConstraint("tenant_id", key.name, name=f"{name}_pkey"),
    )


def bigint(name: str, *, nullable: bool = False) -> Column[object]:
    """A number of things or of minor units."""
    return Column(name, BigInteger, nullable=nullable)

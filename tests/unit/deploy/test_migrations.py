"""A migration that processes of the version before could not live with is refused before anybody runs it."""

from pathlib import Path

import pytest

from deploy.cli.migrations import refused, unreleased

ADDS = """
CREATE TABLE parcel (tenant_id uuid NOT NULL, number bigint NOT NULL, CONSTRAINT parcel_pkey PRIMARY KEY (tenant_id, number));
CREATE INDEX parcel_number ON parcel (number);
ALTER TABLE sales_order ADD COLUMN parcels bigint NOT NULL DEFAULT 0, ADD COLUMN carrier text;
ALTER TABLE sales_order ADD CONSTRAINT sales_order_parcels CHECK (parcels >= 0) NOT VALID;
ALTER TABLE sales_order DROP CONSTRAINT sales_order_state;
COMMIT;
CREATE INDEX CONCURRENTLY IF NOT EXISTS sales_order_carrier ON sales_order (tenant_id, carrier);
BEGIN;
"""
BREAKS = {
    "takes a column away": ("ALTER TABLE sales_order DROP COLUMN carrier", "ban-drop-column"),
    "takes a table away": ("DROP TABLE parcel", "ban-drop-table"),
    "calls a column otherwise": ("ALTER TABLE sales_order RENAME COLUMN carrier TO sent_by", "renaming-column"),
    "calls a table otherwise": ("ALTER TABLE parcel RENAME TO package", "renaming-table"),
    "wants what older processes do not write": (
        "ALTER TABLE sales_order ADD COLUMN parcels bigint NOT NULL",
        "adding-required-field",
    ),
    "makes a column another type": ("ALTER TABLE sales_order ALTER COLUMN number TYPE text", "changing-column-type"),
    "reads a whole table while it is locked": (
        "ALTER TABLE sales_order ADD CONSTRAINT positive CHECK (number > 0)",
        "constraint-missing-not-valid",
    ),
    "lets nobody write while it reads": ("CREATE INDEX by_carrier ON sales_order (carrier)", "require-concurrent-index-creation"),
}


def test_what_only_adds_is_let_through() -> None:
    assert [*refused(ADDS)] == []


@pytest.mark.parametrize("what", BREAKS)
def test_a_migration_is_refused_that(what: str) -> None:
    statement, rule = BREAKS[what]
    told = [*refused(f"{statement};")]
    assert told, what
    assert rule in told[0]


def test_only_what_is_not_released_is_looked_at_and_its_sql_is_the_one_it_runs(tmp_path: Path) -> None:
    versions = tmp_path / "cart" / "migrations" / "versions"
    versions.mkdir(parents=True)
    for number, statement in (("0007", "DROP TABLE cart"), ("0008", "DROP TABLE line")):
        (versions / f"{number}_gone.py").write_text(
            f'from alembic import op\nrevision = "{number}"\ndef upgrade():\n    op.execute("{statement}")\n'
        )
    found = [*unreleased(tmp_path, {"cart": "0007", "checkout": "", "identity": "", "payments": ""})]
    assert [(file.name, sql.strip()) for file, sql in found] == [("0008_gone.py", "DROP TABLE line;")]

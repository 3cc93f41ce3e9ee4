"""Second factors of members, and passwords that they choose anew."""

from alembic import op

from libs.common.tenancy import protect

revision = "0016"
down_revision = "0015"

TABLES = (
    """CREATE TABLE second_factor (
        tenant_id uuid NOT NULL,
        member_id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        enrolment uuid NOT NULL,
        state text NOT NULL,
        sealed_secret bytea,
        last_step bigint NOT NULL,
        recovery jsonb NOT NULL,
        CONSTRAINT second_factor_pkey PRIMARY KEY (tenant_id, member_id),
        CONSTRAINT second_factor_member FOREIGN KEY (tenant_id, member_id) REFERENCES member (tenant_id, id),
        CONSTRAINT second_factor_state CHECK (state IN ('pending', 'active', 'removed')),
        CONSTRAINT second_factor_secret CHECK ((state = 'removed') = (sealed_secret IS NULL)),
        CONSTRAINT second_factor_recovery CHECK (state = 'active' OR jsonb_array_length(recovery) = 0)
    )""",
    """CREATE TABLE password_reset (
        tenant_id uuid NOT NULL,
        member_id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        state text NOT NULL,
        digest text NOT NULL,
        asked_at timestamptz NOT NULL,
        CONSTRAINT password_reset_pkey PRIMARY KEY (tenant_id, member_id),
        CONSTRAINT password_reset_member FOREIGN KEY (tenant_id, member_id) REFERENCES member (tenant_id, id),
        CONSTRAINT password_reset_state CHECK (state IN ('open', 'used'))
    )""",
)


def upgrade() -> None:
    """Expand only."""
    for statement in TABLES:
        op.execute(statement)
    for table in ("second_factor", "password_reset"):
        for statement in protect(table, "identity_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)

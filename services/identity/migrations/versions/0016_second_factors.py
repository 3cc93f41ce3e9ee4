"""Second factors of members."""

from alembic import op

from libs.common.tenancy import protect

revision = "0016"
down_revision = "0013"

TABLE = """CREATE TABLE second_factor (
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
)"""


def upgrade() -> None:
    """Expand only."""
    op.execute(TABLE)
    for statement in protect("second_factor", "identity_app", privileges="SELECT, INSERT, UPDATE"):
        op.execute(statement)

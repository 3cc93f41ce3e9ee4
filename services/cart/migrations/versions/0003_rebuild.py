"""The table beside the products, in which they are rebuilt from the catalogue's topic."""

from alembic import op

from libs.common.messaging.rebuild import rebuildable
from libs.common.tenancy import protect

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Expand only."""
    for statement in rebuildable("cart", "product", ["tenant_id", "sku"]):
        op.execute(statement)
    for statement in protect("product_rebuild", "cart_app", privileges="SELECT, INSERT, UPDATE"):
        op.execute(statement)

"""Who may ask what is over all tenants."""

from libs.common.clock import PLATFORM
from libs.common.errors import DeniedError
from libs.common.http.routes import Call


def require_platform(call: Call) -> None:
    """Raise DeniedError for whoever has a tenant, whatever their permissions."""
    if call.tenant_id != PLATFORM:
        raise DeniedError("platform-only", "this is for operators of the platform")

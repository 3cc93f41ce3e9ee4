"""Every change to a second factor, as the walk through the audit trail makes it."""

import base64
from typing import Any, Protocol
from uuid import UUID

from libs.common.clock import now
from services.identity.domain.second_factor import code_of, step_at
from tests.shared.callers import Person


class Act(Protocol):
    """Does something over HTTP, and finds it in the trail."""

    async def __call__(self, who: Person, method: str, path: str, of: UUID, kinds: set[str], **request: Any) -> Any: ...


async def second_factor_is_walked(act: Act, who: Person) -> set[str]:
    """What was shown meanwhile, and is nobody else's to know."""
    of, kind, path = who.tenant_id, {"second-factor"}, "/v1/second-factors"
    begun = await act(who, "POST", path, of, kind)
    secret, step = base64.b32decode(begun["secret"]), step_at(now())
    first = await act(who, "POST", f"{path}/confirm", of, kind, json={"code": code_of(secret, step)})
    second = await act(who, "POST", f"{path}/recovery-codes", of, kind, json={"code": code_of(secret, step + 1)})
    await act(who, "POST", f"{path}/remove", of, kind, json={"code": second["recovery_codes"][0]})
    return {begun["secret"], *first["recovery_codes"], *second["recovery_codes"]}

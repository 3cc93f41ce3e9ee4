"""Who may ask for what: every route of every service beside every kind of caller, as the declarations have it."""

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, cast

from deploy.composition import parts_of
from libs.common.auth import PLATFORM_OPERATOR, ROLES, SHOPPER
from libs.common.http.operator import OperatorRoute, repair_routes
from libs.common.http.routes import Guard, GuardedRoute
from libs.common.http.seeing import Sight
from libs.common.processes.api import api_app
from services import SERVICES
from services.identity.domain.role import BUILT_IN

CALLERS: Final[Mapping[str, frozenset[str] | None]] = {
    **BUILT_IN,
    "shopper": ROLES[SHOPPER],
    "guest": ROLES[SHOPPER],
    "platform": ROLES[PLATFORM_OPERATOR],
    "nobody": None,
}
"""What each may at most; nobody has no token."""
YES, OWN, ITS, NO = "yes", "own", "its", "no"
_BUYERS: Final = frozenset({"shopper", "guest"})


def table(service: str) -> str:
    """Render one service's routes, with a column a caller."""
    head = ("verb and path", *CALLERS)
    rows = [
        (f"`{name}`", *(cell(rule, caller, takes_token=takes_token) for caller in CALLERS))
        for name, rule, takes_token in sorted(_declared(service), key=itemgetter(0))
    ]
    return "\n".join(_line(each) for each in (head, ["---"] * len(head), *rows))


def routes() -> str:
    """Render every service's."""
    return "\n\n".join(f"### {service}\n\n{table(service)}" for service in SERVICES)


def takes_any_token(route: GuardedRoute) -> bool:
    """Whether a route that demands no permission demands a token all the same: for what is its bearer's own."""
    return route.rule.permission is None and (route.openapi_extra or {}).get("security") == [{"bearer": []}]


def roles() -> str:
    """Render what each built-in role may."""
    permissions = sorted(frozenset[str]().union(*BUILT_IN.values()))
    head = ("permission", *BUILT_IN)
    rows = [(f"`{each}`", *(YES if each in BUILT_IN[role] else "" for role in BUILT_IN)) for each in permissions]
    return "\n".join(_line(each) for each in (head, ["---"] * len(head), *rows))


def cell(rule: Guard, caller: str, *, takes_token: bool = False) -> str:
    """What a caller may on a route: all of their tenant's, what is their own, what is of their token, or nothing."""
    held = CALLERS[caller]
    if rule.permission is None:
        return YES if not takes_token else NO if held is None else ITS
    is_anothers = rule.tenant_only if caller == "platform" else rule.platform_only
    if held is None or is_anothers or not held & {rule.permission, rule.instead}:
        return NO
    by_owner = isinstance(rule.sees, Sight) and rule.sees.is_by_owner
    return OWN if by_owner and caller in _BUYERS else YES


def _declared(service: str) -> Iterator[tuple[str, Guard, bool]]:
    app = api_app(service, parts_of(service).routes)
    for route in (*app.routes, *app.operators.routes):
        if isinstance(route, GuardedRoute):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield f"{method} {route.path_format}", route.rule, takes_any_token(route)
    # Only what they declare is asked for here, and that needs no messages and no keys.
    for operators in repair_routes(cast("Any", None), cast("Any", None)):
        for method in sorted((operators.methods or set()) - {"HEAD"}):
            yield f"{method} {operators.path_format}", _of_operators(operators), False


def _of_operators(route: OperatorRoute) -> Guard:
    return Guard(permission=route.permission, platform_only=True)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


SECTIONS: Final = {"roles": roles, "routes": routes}

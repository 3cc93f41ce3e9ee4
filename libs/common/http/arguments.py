"""An endpoint's arguments: which ones it declares FastAPI has found out, for its document; here they are filled.

FastAPI's own handler looks for cookies, forms, streams and background tasks, and opens two exit stacks, with every
request. Our endpoints ask for none of it; left out, that saves a quarter of what a request cost without its database.
"""

import inspect
from collections.abc import Callable
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_body_to_args, request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.params import Body
from starlette.requests import Request

from libs.common.http.reading import NOTHING, UNKEEPABLE
from libs.common.json_text import is_keepable


class Arguments:
    """What an endpoint, or something it depends on, is called with."""

    def __init__(self, asked: Dependant, given: Callable[..., Any]) -> None:
        """Whatever depends on `given` gets what there is already; anything else it depends on is awaited."""
        self._asked = asked
        self._given = [str(each.name) for each in asked.dependencies if each.call is given]
        made = [each for each in asked.dependencies if each.call is not given]
        self._made: list[tuple[str, Any, Arguments]] = [(str(each.name), each.call, Arguments(each, given)) for each in made]
        self._path = [(each.name, each.alias, each.validate, ("path", each.alias)) for each in asked.path_params]
        self._refuse_more()

    def _refuse_more(self) -> None:
        """Raise TypeError if it asks for what nobody here would give it."""
        asked, call = self._asked, self._asked.call
        fields = [*asked.path_params, *asked.query_params, *asked.header_params, *asked.body_params]
        filled = {*self._given, *(name for name, _, _ in self._made), *(each.name for each in fields)}
        bodies = [each.field_info for each in asked.body_params]
        one_json_body = len(bodies) <= 1 and all(type(each) is Body and not each.embed for each in bodies)
        if not inspect.iscoroutinefunction(call) or not one_json_body or filled != inspect.signature(call).parameters.keys():
            message = f"{call} may ask for a path, a query, headers, one JSON body and coroutines that ask for no more"
            raise TypeError(message)

    async def of(self, request: Request, given: object, body: Any) -> dict[str, Any]:
        """The arguments by name. Raises RequestValidationError with all that is wrong."""
        values: dict[str, Any] = dict.fromkeys(self._given, given)
        for name, make, theirs in self._made:
            values[name] = await make(**await theirs.of(request, given, body))
        errors: list[Any] = []
        for name, alias, validate, place in self._path:
            given_text = request.path_params[alias]
            values[name], wrong = validate(given_text, loc=place)
            errors += wrong or ([] if is_keepable(given_text) else [{"loc": place, "msg": UNKEEPABLE}])
        if self._asked.query_params:
            _take(request_params_to_args(self._asked.query_params, request.query_params), values, errors)
        if self._asked.header_params:
            _take(request_params_to_args(self._asked.header_params, request.headers), values, errors)
        if self._asked.body_params:
            _take(await self._of_body(body), values, errors)
        if errors:
            raise RequestValidationError(errors)
        return values

    async def _of_body(self, body: Any) -> tuple[dict[str, Any], list[Any]]:
        field = self._asked.body_params[0]
        if body is NOTHING:
            return await request_body_to_args([field], body, embed_body_fields=False)
        value, wrong = field.validate(body, loc=("body",))
        return {field.name: value}, wrong


def _take(found: tuple[dict[str, Any], list[Any]], values: dict[str, Any], errors: list[Any]) -> None:
    values.update(found[0])
    errors += found[1]

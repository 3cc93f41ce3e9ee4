"""What each service is made of, by its name: for the command line, the local stack, the documents and the tests."""

import ast
import inspect
import itertools
from importlib import import_module
from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from libs.common.processes.parts import ServiceParts
    from libs.common.settings import Settings


def parts_of(service: str) -> "ServiceParts":
    """What this service is made of."""
    parts: ServiceParts = import_module(f"services.{service}.app").PARTS
    return parts


def settings_of(service: str) -> "type[Settings]":
    """What it reads from its environment: the same as its parts say, without loading the rest of them."""
    settings: type[Settings] = import_module(f"services.{service}.settings").Settings
    return settings


def is_secret(setting: "FieldInfo") -> bool:
    """Tell whether a setting's value is told to nobody."""
    from pydantic import SecretStr

    return SecretStr in {setting.annotation, *get_args(setting.annotation)}


def meaning_of(settings: "type[Settings]", name: str) -> str:
    """What a setting is for: the docstring below it, in the class that declares it. Raises LookupError where there is none."""
    declaring = next(each for each in settings.__mro__ if name in inspect.get_annotations(each))
    [body] = ast.parse(inspect.getsource(declaring)).body
    assert isinstance(body, ast.ClassDef)
    for field, said in itertools.pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == name and isinstance(said, ast.Expr):
            return str(ast.literal_eval(said.value))
    raise LookupError(f"{declaring.__module__}: {name} says nothing of itself; write a docstring below it")

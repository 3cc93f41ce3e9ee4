"""Writes a mutant into the process that runs: its functions get the changed code, its constants the changed value.

Nothing is imported anew, so whoever holds a function or has imported a constant by its name has the mutant too. What a module
has made of a constant while it was imported stays as it was.
"""

import ast
import gc
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from tests.mutation.sites import ROOT, Mutant


class NotApplicableError(Exception):
    """Nothing that runs would be any different."""


Key = tuple[str, int]


def write(mutant: Mutant) -> None:
    """Change this process for good. Raises NotApplicableError."""
    module = sys.modules.get(module_of(mutant.path))
    if module is None:
        raise NotApplicableError(f"nobody imported {mutant.path}")
    before = codes_of(mutant.path)
    mutant.apply()
    tree = ast.fix_missing_locations(mutant.tree)
    if mutant.constant is not None:
        _rebind(module, mutant.where, mutant.constant)
        return
    after = _by_key(compile(tree, str(mutant.path), "exec"))
    changed = {
        old: new
        for key, olds in before.items()
        if len(olds) == len(after[key])
        for old, new in zip(olds, after[key], strict=True)
    }
    _exchange(str(mutant.path), {old: new for old, new in changed.items() if old != new})


def module_of(path: Path) -> str:
    """A module's name by its file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def codes_of(path: Path) -> Mapping[Key, list[CodeType]]:
    """The code of every function of a module, as its file says."""
    return _by_key(compile(path.read_text(encoding="utf-8"), str(path), "exec"))


def _by_key(code: CodeType) -> Mapping[Key, list[CodeType]]:
    found: Mapping[Key, list[CodeType]] = defaultdict(list)
    for each in _below(code):
        found[each.co_qualname, each.co_firstlineno].append(each)
    return found


def _below(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _below(constant)


def _exchange(path: str, changed: Mapping[CodeType, CodeType]) -> None:
    """Give every function that has one of these codes the other."""
    found = False
    for function in [each for each in gc.get_objects() if type(each) is FunctionType and each.__code__.co_filename == path]:
        if (new := changed.get(function.__code__)) is not None:
            if len(new.co_freevars) != len(function.__code__.co_freevars):
                raise NotApplicableError("it closes over something else")
            function.__code__ = new
            found = True
    if not found:
        raise NotApplicableError("no function of it is there")


def _rebind(module: ModuleType, name: str, value: ast.expr) -> None:
    """Evaluate a module's constant anew, and give it to everybody who has the one there is."""
    old = vars(module)[name]
    new = eval(compile(ast.Expression(value), str(module.__file__), "eval"), vars(module))  # the module's own source
    if isinstance(old, dict):
        old.clear()
        old.update(new)
        return
    for each in [*sys.modules.values()]:
        if vars(each).get(name) is old:
            setattr(each, name, new)

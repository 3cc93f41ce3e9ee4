"""The changes that one node of a syntax tree can have: what is easily written otherwise, and would be a bug."""

import ast
import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

LONGEST = 90
TOLD = frozenset({"log", "REFUSED", "SUSPECTED", "OVER_REFUNDED"})
MEASURED = frozenset({"inc", "observe", "labels", "warning", "info", "error", "debug"})
"""The calls that only tell somebody what happened."""

COMPARED: Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
COUNTED: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
}
BARE = (ast.Name, ast.Attribute, ast.Call, ast.NamedExpr)
"""Conditions that have no operator of their own to be changed."""
NAMED = {"min": "max", "max": "min", "any": "all", "all": "any"}
IN_SQL = (("<=", "<"), (">=", ">"), (" > ", " >= "), (" < ", " <= "), (" AND ", " OR "), (" OR ", " AND "), (" = ", " <> "))
IN_SQL_LEFT_OUT = (
    " FOR UPDATE OF c SKIP LOCKED",
    " FOR UPDATE SKIP LOCKED",
    " FOR UPDATE",
    " SKIP LOCKED",
    " ON CONFLICT DO NOTHING",
    " + 1",
)
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b")


@dataclass(frozen=True, slots=True)
class Change:
    """One change that can be made to a tree."""

    what: str
    line: int
    apply: Callable[[], None]


def is_for_people(node: ast.AST) -> bool:
    """Whether it is only for whoever reads it: a docstring, a line of a log, a figure."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.JoinedStr():
            return True
        case ast.Call(func=ast.Attribute(value=value, attr=attr)):
            return attr in MEASURED or (isinstance(value, ast.Name) and value.id in TOLD)
        case ast.Expr(value=value):
            return is_for_people(value)
        case _:
            return False


def changes_of(node: ast.AST) -> Iterator[Change]:
    """The changes of this node itself, not of what is below it."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARED:
            yield from (_replaced(node, "ops", [other()]) for other in COMPARED[type(op)])
        case ast.BoolOp(op=op):
            yield _replaced(node, "op", ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not()):
            yield _replaced(node, "operand", ast.UnaryOp(ast.Not(), node.operand), told=node.operand)
        case ast.BinOp(op=op, left=left, right=right) if type(op) in COUNTED and not (_is_text(left) or _is_text(right)):
            yield _replaced(node, "op", COUNTED[type(op)]())
        case ast.Constant(value=bool() as value):
            yield _replaced(node, "value", not value)
        case ast.Constant(value=int() as value):
            yield _replaced(node, "value", value + 1)
        case ast.Call(func=ast.Name(id=name)) if name in NAMED:
            yield _replaced(node, "func", ast.Name(NAMED[name], ast.Load()))
        case ast.Call():
            yield from _of_call(node)
        case _:
            yield from _negated(node)
    yield from _left_out(node)


def _negated(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.If() | ast.IfExp() | ast.While() if isinstance(node.test, BARE):
            test, name, new = node.test, "test", ast.UnaryOp(ast.Not(), node.test)
            yield Change(f"if {_text(test)} -> if not", test.lineno, partial(setattr, node, name, new))
        case ast.comprehension(ifs=[test]) if isinstance(test, BARE):
            yield Change(
                f"if {_text(test)} -> if not", test.lineno, partial(setattr, node, "ifs", [ast.UnaryOp(ast.Not(), test)])
            )
        case _:
            pass


def _of_call(node: ast.Call) -> Iterator[Change]:
    if len(node.args) >= 2 and not any(isinstance(each, ast.Starred) for each in node.args[:2]):
        first, second = node.args[:2]
        if isinstance(first, ast.Name | ast.Attribute) and isinstance(second, ast.Name | ast.Attribute):
            yield _replaced(node, "args", [second, first, *node.args[2:]])
    if isinstance(node.func, ast.Name) and node.func.id == "replace":
        for keyword in node.keywords:
            if keyword.arg is not None:
                yield _replaced(node, "keywords", [each for each in node.keywords if each is not keyword])


def _left_out(node: ast.AST) -> Iterator[Change]:
    """A statement that is forgotten; the return of a function's end is not, for that is another function."""
    for name in ("body", "orelse"):
        body = getattr(node, name, None)
        if isinstance(body, list):
            yield from forgotten_in(body, early=isinstance(node, ast.If | ast.For | ast.With | ast.AsyncWith | ast.Try))


def forgotten_in(body: list[ast.stmt], *, early: bool = False) -> Iterator[Change]:
    """Each statement of a body that can be forgotten."""
    for place, statement in enumerate(body):
        is_done = isinstance(statement, ast.Expr) and not is_for_people(statement)
        if is_done or isinstance(statement, ast.Raise | ast.AugAssign) or (early and isinstance(statement, ast.Return)):
            yield _forgotten(body, place)


def _forgotten(body: list[ast.stmt], place: int) -> Change:
    statement = body[place]

    def apply() -> None:
        body[place] = ast.copy_location(ast.Pass(), statement)

    return Change(f"{_text(statement)} -> left out", statement.lineno, apply)


def constants_of(value: ast.expr) -> Iterator[Change]:
    """The changes of a module's constant: one number, one member of a set, one part of a statement in SQL."""
    match value:
        case ast.Constant(value=str() as text) if SQL.match(text):
            yield from _of_sql(value, text)
        case ast.Constant(value=int()) | ast.Call(func=ast.Name(id="timedelta")):
            yield from (change for each in ast.walk(value) if isinstance(each, ast.Constant) for change in changes_of(each))
        case ast.Call(func=ast.Name(id="frozenset")) | ast.Dict():
            for node in ast.walk(value):
                if isinstance(node, ast.Set) and len(node.elts) > 1:
                    yield from (_without(node, each) for each in node.elts)
        case _:
            pass


def _of_sql(node: ast.Constant, text: str) -> Iterator[Change]:
    for wrong in _wrong_sql(text):
        before, after = _difference(text, wrong)
        yield Change(f"{before} -> {after}", node.lineno, partial(setattr, node, "value", wrong))


def _wrong_sql(text: str) -> Iterator[str]:
    for right, wrong in (*IN_SQL, *((each, "") for each in IN_SQL_LEFT_OUT)):
        for found in re.finditer(re.escape(right), text):
            yield text[: found.start()] + wrong + text[found.end() :]


def _difference(text: str, wrong: str) -> tuple[str, str]:
    start = next((place for place, (a, b) in enumerate(zip(text, wrong, strict=False)) if a != b), min(len(text), len(wrong)))
    end = next((n for n, (a, b) in enumerate(zip(text[::-1], wrong[::-1], strict=False)) if a != b), 0)
    end = min(end, len(text) - start, len(wrong) - start)
    around = slice(max(start - 25, 0), start)
    return (
        " ".join((text[around] + text[start : len(text) - end + 12]).split()),
        " ".join((wrong[around] + wrong[start : len(wrong) - end + 12]).split()),
    )


def _without(node: ast.Set, element: ast.expr) -> Change:
    rest = [each for each in node.elts if each is not element]
    return Change(f"{_text(node)} -> without {_text(element)}", element.lineno, lambda: setattr(node, "elts", rest))


def _replaced(node: ast.AST, name: str, new: object, *, told: ast.AST | None = None) -> Change:
    """Set this attribute of the node; `told` is what that comes to, if it is simpler said so."""
    changed = copy.copy(node)
    setattr(changed, name, new)
    return Change(f"{_text(node)} -> {_text(told or changed)}", getattr(node, "lineno", 0), lambda: setattr(node, name, new))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 12]}…{text[-10:]}"

"""Where a line could be wrong: every small change of the code that somebody could make by mistake, found in its syntax tree.

A mutant is one of them, with a name that stands still while the code around it moves. What is only told to people (log lines,
metrics, what a refusal says) is left alone, and so are annotations.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutation.changes import Change, changes_of, constants_of, forgotten_in, is_for_people
from tests.shared.sources import parsed

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one line."""

    path: Path
    where: str
    """The function, or the constant, that is changed."""
    what: str
    """The line's part before and after."""
    line: int
    tree: ast.Module = field(repr=False)
    apply: Callable[[], None] = field(repr=False)
    """Changes the tree for good: whoever calls it is about to end."""
    constant: ast.expr | None = field(default=None, repr=False)
    """What the module's constant is made of, if it is that which is changed."""

    def is_within(self, qualname: str) -> bool:
        """Whether the function of this name is the one that is changed, or within it."""
        plain = qualname.replace(".<locals>", "").replace("<lambda>", "lambda")
        return plain == self.where or plain.startswith(f"{self.where}.") or self.where.endswith("lambda")

    @property
    def name(self) -> str:
        """What it is called in files that are kept."""
        return f"{self.path.relative_to(ROOT)}::{self.where}: {self.what}"

    @property
    def rank(self) -> str:
        """Its place in the order in which mutants are taken: by chance, and always the same."""
        return hashlib.sha256(self.name.encode()).hexdigest()


def mutants_of(path: Path) -> Sequence[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = parsed(path.read_text(encoding="utf-8"))
    seen = Counter[tuple[str, str]]()
    found: list[Mutant] = []
    for where, change, constant in _found(tree):
        seen[where, change.what] += 1
        nth = seen[where, change.what]
        what = change.what if nth == 1 else f"{change.what} ({nth})"
        found.append(Mutant(path, where, what, change.line, tree, change.apply, constant))
    return found


def _found(tree: ast.Module) -> Iterator[tuple[str, Change, ast.expr | None]]:
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                yield from ((name, change, value) for change in constants_of(value))
            case _:
                pass
    yield from ((where, change, None) for where, change in _inside(tree, ()))


def _inside(node: ast.AST, within: tuple[str, ...]) -> Iterator[tuple[str, Change]]:
    """The changes in the bodies of all functions below; the whole way down, by the outermost function's name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _inside(child, (*within, child.name))
        elif isinstance(child, FUNCTIONS):
            name = ".".join((*within, getattr(child, "name", "lambda")))
            if isinstance(child, ast.Lambda):
                yield from ((name, change) for change in _changes([child.body]))
                continue
            yield from ((name, change) for change in (*forgotten_in(child.body), *_changes(child.body)))
            for decorator in child.decorator_list:
                yield from _inside(decorator, (*within, child.name))
        else:
            yield from _inside(child, within)


def _changes(nodes: Sequence[ast.AST]) -> Iterator[Change]:
    for node in nodes:
        if is_for_people(node):
            continue
        yield from changes_of(node)
        match node:
            case ast.Raise():
                pass  # what it says is for people
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _changes(node.body)
            case ast.AnnAssign(value=value):
                yield from _changes([value] if value else [])
            case _:
                yield from _changes([*ast.iter_child_nodes(node)])

"""The mutants of a source file: each is the file with one small fault, such as a programmer makes.

Left as they are: annotations, decorators, docstrings, what an error says, and what is only shown while something runs.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

OPERATORS: Final[dict[type[ast.AST], type[ast.AST]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_PAIRS: Final = "min max, any all, amin amax, argmin argmax, floor ceil, ones zeros, ones_like zeros_like, left right"
NAMES: Final = {one: other for pair in _PAIRS.split(", ") for one, other in (pair.split(), pair.split()[::-1])}
NAMES.update({"clamp_min": "clamp_max", "clamp_max": "clamp_min", "extend": "append"})
CHANGING: Final = {
    "relu",
    "abs",
    "sqrt",
    "softmax",
    "sigmoid",
    "exp",
    "clamp",
    "clamp_min",
    "clamp_max",
    "clip",
    "flip",
}
CHANGING.update({"nan_to_num", "nansum", "transpose", "permute"})
SHOWN: Final = {"say", "progress", "progress_bar", "warn", "set_postfix", "TypeVar", "ParamSpec"}
UNSAID: Final = {"label", "encoding", "help", "desc"}  # keywords
NEVER: Final = {"annotation", "returns", "decorator_list", "bases", "keywords", "type_params"}
NEVER_BELOW: Final = (ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Raise, ast.Assert)


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        module: the file, from the project's root.
        function: where, such as `Class.method`; empty outside of functions.
        before: the statement or its first line, as Python would write it.
        after: the same with the fault.
        nth: counts those of the same function and text, from 0.
        lines: first and last line of what a test must run to meet it.
        at_import: it is run when the module is imported.
        number: its place among the mutants of its file.
    """

    module: str
    function: str
    before: str
    after: str
    nth: int
    lines: tuple[int, int]
    at_import: bool
    number: int

    @property
    def text(self) -> str:
        """What changes, on one line."""
        return f"{self.before} -> {self.after}"

    @property
    def key(self) -> str:
        """What tells it from all others, wherever in the file it stands."""
        return " | ".join((self.module, self.function, self.text, str(self.nth)))


@dataclass(frozen=True)
class _Place:
    holder: ast.AST
    field: str
    index: int | None
    statement: ast.AST
    function: tuple[str, ...]
    at_import: bool

    def put(self, node: object) -> object:
        """Set a node here and return the one before; None takes an item out of a list."""
        values = getattr(self.holder, self.field)
        if self.index is None:
            setattr(self.holder, self.field, node)
            return values
        former = values[self.index]
        setattr(self.holder, self.field, [*values[: self.index], *([node] if node else []), *values[self.index + 1 :]])
        return former


def find_mutants(source: str, module: str) -> list[Mutant]:
    """Return all mutants of a file."""
    found, seen = [], Counter[tuple[str, str, str]]()
    for number, (place, new) in enumerate(_edits(ast.parse(source))):
        before, lines = _shown(place.statement), _lines(place.statement)
        with _edited(place, new):
            after = _shown(new if isinstance(new, ast.stmt) else place.statement)
        if new is None and isinstance(place.statement, ast.match_case):
            after = "no such case"
        if after == before:
            continue
        said = (".".join(place.function), before, after)
        found.append(Mutant(module, *said, seen[said], lines, place.at_import, number))
        seen[said] += 1
    return found


def mutated(source: str, number: int) -> ast.Module:
    """Return the tree of a file's mutant."""
    tree = ast.parse(source)
    place, new = list(_edits(tree))[number]
    with _edited(place, new, keep=True):
        return ast.fix_missing_locations(tree)


@contextmanager
def _edited(place: _Place, new: ast.AST | None, *, keep: bool = False) -> Iterator[None]:
    values = getattr(place.holder, place.field)
    place.put(new)
    yield
    if not keep:
        setattr(place.holder, place.field, values)


def _edits(tree: ast.Module) -> list[tuple[_Place, ast.AST | None]]:
    return [(place, new) for place, node in _places(tree, tree, (), True) for new in _replacements(node, place)]


def _places(
    holder: ast.AST, statement: ast.AST, function: tuple[str, ...], at_import: bool
) -> Iterator[tuple[_Place, ast.AST]]:
    """Yield every node that may be mutated, with where it stands."""
    if isinstance(holder, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in holder.bases):
        return
    named = isinstance(holder, ast.FunctionDef | ast.ClassDef)
    for field, value in ast.iter_fields(holder):
        if (field in NEVER and not isinstance(holder, ast.Call)) or value is None:
            continue
        inner = (*function, holder.name) if named and field == "body" else function  # type: ignore[attr-defined]
        late = at_import and not (isinstance(holder, ast.FunctionDef | ast.Lambda) and field == "body")
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or _is_said(node):
                continue
            under = node if isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case) else statement
            yield _Place(holder, field, index, under, inner, late), node
            if not isinstance(node, NEVER_BELOW):
                yield from _places(node, under, inner, late)


def _is_said(node: ast.AST) -> bool:
    """Return whether a node is a docstring, or is only for a person to read."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or _is_said(node.value)
    if isinstance(node, ast.keyword):
        return node.arg in UNSAID
    return isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in SHOWN


def _replacements(node: ast.AST, place: _Place) -> Iterator[ast.AST | None]:  # noqa: PLR0912 - a line for each kind
    """Yield what may stand in a node's place; None takes it away."""
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str(value)) if not isinstance(place.holder, ast.keyword):
            yield ast.Constant(value + "_")
        case ast.keyword(value=ast.Constant(value=str())):
            yield None
        case ast.UnaryOp():
            yield node.operand
        case ast.BoolOp(values=values):
            for index in range(len(values)):
                rest = values[:index] + values[index + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        case ast.IfExp():
            yield from (node.body, node.orelse)
        case ast.If() | ast.While():
            yield from _forced(node)
        case ast.comprehension(ifs=[_, *_]):
            yield ast.comprehension(node.target, node.iter, [], node.is_async)
        case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in CHANGING:
            yield value
        case ast.Slice():
            yield from _shortened(node)
        case ast.Return(value=ast.AST()):
            yield ast.Return(ast.Constant(None))
        case ast.Expr() | ast.AugAssign() | ast.Delete():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]) | ast.Raise():
            if not (isinstance(place.holder, ast.If) and len(place.holder.body) == 1):
                yield ast.Pass()
        case ast.match_case() | ast.expr() if _is_choice(place):
            yield None
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in NAMES and _is_called(node, place):
            yield _renamed(node, NAMES[name])
        case _ if type(node) in OPERATORS:
            yield OPERATORS[type(node)]()


def _forced(node: ast.If | ast.While) -> Iterator[ast.AST]:
    """Yield a branch that is never taken and one that always is; a loop without end is none."""
    for value in (False, True) if isinstance(node, ast.If) else (False,):
        kept: dict[str, Any] = dict(ast.iter_fields(node))
        yield type(node)(**{**kept, "test": ast.Constant(value)})


def _shortened(node: ast.Slice) -> Iterator[ast.AST]:
    for name, part in ast.iter_fields(node):
        if part is not None:
            yield ast.Slice(**{**dict(ast.iter_fields(node)), name: None})


def _is_choice(place: _Place) -> bool:
    """Return whether this is one of several cases of a match, or of several errors that are caught."""
    if isinstance(place.holder, ast.Match):
        return place.field == "cases" and len(place.holder.cases) > 1
    caught = getattr(place.statement, "type", None)
    return isinstance(place.holder, ast.Tuple) and place.holder is caught


def _is_called(node: ast.AST, place: _Place) -> bool:
    return isinstance(place.holder, ast.Call) and place.holder.func is node


def _renamed(node: ast.Name | ast.Attribute, name: str) -> ast.AST:
    return ast.Name(name, node.ctx) if isinstance(node, ast.Name) else ast.Attribute(node.value, name, node.ctx)


def _shown(node: ast.AST) -> str:
    """Return a statement on one line: of one that holds others the head alone."""
    if isinstance(node, ast.Match):
        return f"match {ast.unparse(node.subject)}: {len(node.cases)} cases"
    emptied = {"body": [ast.Pass()], "orelse": [], "finalbody": [], "handlers": [], "decorator_list": []}
    fields = dict(ast.iter_fields(node))
    if isinstance(fields.get("body"), list):
        node = type(node)(**{**fields, **{name: value for name, value in emptied.items() if name in fields}})
        ast.fix_missing_locations(node)
        return ast.unparse(node).strip().splitlines()[0]
    return " ".join(ast.unparse(node).split("\n"))


def _lines(node: ast.AST) -> tuple[int, int]:
    """Return the first and last line of a statement's head."""
    if isinstance(node, ast.match_case):
        return node.pattern.lineno, node.body[-1].end_lineno or node.pattern.lineno
    body, first = getattr(node, "body", None), getattr(node, "lineno", 1)
    if isinstance(body, list) and body and not isinstance(node, ast.Module):
        return first, max(first, body[0].lineno - 1)
    return first, getattr(node, "end_lineno", None) or first

"""What Python's own rules say of a text with a hole: what is wrong with an answer, and how the answer might begin.

A compiler knows two things that a small language model is unsure of: whether a text parses, and which of its names
nothing binds. Names are resolved by pyflakes, in the order of the text: a variable that is read above the line that
sets it is unbound as well. Nothing is run.
"""

from __future__ import annotations

import ast
import math
import re
import symtable
import sys
import warnings
from collections.abc import Mapping

from pyflakes import messages
from pyflakes.checker import Checker

# Names that one line is thought to bind together, as in `for key, value in`.
TOGETHER = 3
_UNBOUND = (messages.UndefinedName, messages.UndefinedLocal)
# What parses, and is refused all the same.
_OUTSIDE_FUNCTION = (messages.ReturnOutsideFunction, messages.YieldOutsideFunction)
_MISPLACED = (*_OUTSIDE_FUNCTION, messages.BreakOutsideLoop, messages.ContinueOutsideLoop)
# How a line may open a block, and a line of that kind.
_CLAUSES = {
    "if": "if True:", "while": "while True:", "for": "for _ in ():", "except": "except:", "try:": "try:",
    "def": "def _():",
}  # fmt: skip
_OPENS = re.compile(r":\s*(?:#.*)?$")


def faults(text: str) -> float:
    """What speaks against a text as Python: uses of names that nothing binds, a `return` or `break` that is nowhere.

    Infinity where it does not parse. It is for comparing texts that differ in one place: what is wrong elsewhere counts
    against all of them.
    """
    tree = _parsed(text)
    return math.inf if tree is None else len(_found(tree, _UNBOUND + _MISPLACED))


def beginnings(prefix: str, suffix: str) -> list[str]:
    """How whole lines between two texts of Python might begin, by what the texts need; mostly nothing is known.

    Names that are used and bound nowhere are to be bound: as a variable, by an import, or, where a deeper line follows
    that only the hole can open, by a loop or a function. Other lines that open a block may be conditions as well.
    """
    line = prefix.rpartition("\n")[2]
    if line.strip() or (suffix.partition("\n")[0].strip() and not _whole(prefix)):
        return []
    end = "\n" if _whole(prefix) else ""

    def trees(clause: str, indents: list[str]) -> dict[str, ast.Module]:
        tried = {indent: _parsed(prefix + indent + clause + end + suffix) for indent in indents}
        return {indent: tree for indent, tree in tried.items() if tree is not None}

    if closed := trees("pass", [""] if line else _indents(prefix, suffix)):
        return [indent + one for indent, tree in closed.items() for one in _binding(tree)]
    outer = "" if line else _outer(prefix, suffix)
    opened = {word: tree for word, clause in _CLAUSES.items() for tree in trees(clause, [outer]).values()}
    return [outer + one for one in _opening(opened)]


def _whole(prefix: str) -> bool:
    """Whether the hole begins a line, so that it has to end one."""
    return prefix.endswith("\n") or not prefix


def _indents(above: str, below: str) -> list[str]:
    """Indents of a line between two texts: what follows the last line above, and the next line's where that is less."""
    last = next((line for line in reversed(above.split("\n")) if line.strip()), "")
    after = _blank(last) + ("\t" if _blank(last).startswith("\t") else "    ") * bool(_OPENS.search(last))
    following = next((_blank(line) for line in below.split("\n") if line.strip()), after)
    return [after, following] if after.startswith(following) and after != following else [after]


def _outer(above: str, below: str) -> str:
    """The indent of a line that opens the block of the next one: that of a line above which stands left of it."""
    following = next((len(_blank(line)) for line in below.split("\n") if line.strip()), 0)
    candidates = [*_indents(above, below)[:1], *(_blank(line) for line in reversed(above.split("\n")) if line.strip())]
    return next((one for one in candidates if len(one) < following), "")


def _blank(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _parsed(text: str) -> ast.Module | None:
    """The tree of what keeps to the grammar and the rules of scopes; None for other texts.

    Nothing is compiled: that writes every `finally` twice, and could take forever.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like are no errors
            tree = ast.parse(text)
            symtable.symtable(text, "<source>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree


def _found(tree: ast.Module, kinds: tuple[type[messages.Message], ...]) -> list[messages.Message]:
    """Messages of these kinds, in the order of the text; none of a tree that is too deep to be walked."""
    try:
        found = [message for message in Checker(tree).messages if isinstance(message, kinds)]
    except RecursionError:
        return []
    return sorted(found, key=lambda message: (message.lineno, message.col))


def _unbound(tree: ast.Module) -> list[str]:
    """The names that are used and that nothing binds."""
    return list(dict.fromkeys(str(message.message_args[0]) for message in _found(tree, _UNBOUND)))


def _binding(tree: ast.Module) -> list[str]:
    """Names that are unbound: as variables, or as modules where they are used like some of the standard library."""
    names = _unbound(tree)[:TOGETHER]
    owners = {
        node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    modules = [f"import {name}" for name in names if name in owners & sys.stdlib_module_names]
    return modules + [f"{name} =" for name in names] + [f"{', '.join(names)} ="] * (len(names) > 1)


def _opening(trees: Mapping[str, ast.Module]) -> list[str]:
    """A function where one is missed or what it returns is, a loop where names want one; else all that is possible.

    `trees`: of the whole text, by the word that opens the block.
    """
    if not trees:
        return []
    tree = next(iter(trees.values()))
    names = _unbound(tree)
    if "self" in names or _found(tree, _OUTSIDE_FUNCTION):
        tree = trees.get("def", tree)
        names = _unbound(tree)
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    variables = [name for name in names if name not in called][:TOGETHER]
    functions = [name for name in names if name in called][:TOGETHER]
    if functions or tree is trees.get("def"):
        known = [f"def {name}({', '.join(variables)}" for name in functions]
        return list(dict.fromkeys([*known, *(f"def {name}(" for name in functions), "def"]))
    if variables:
        return [f"for {', '.join(variables)} in"]
    return [word for word, tree in trees.items() if word != "def" and not _found(tree, _MISPLACED)]

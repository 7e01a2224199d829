"""What must not pass: a benchmark's problems planted in real files, in forms that decontamination says it finds."""

from __future__ import annotations

import ast
import io
import keyword
import random
import textwrap
import tokenize
from collections.abc import Iterator, Sequence

from codegen25.data.decontaminate import Problem

# A renamed solution is planted where it has so many words and signs: shorter ones are anybody's code.
RENAMED_TOKENS = 70
TEXT_WORDS = 12


def planted(problems: Sequence[Problem], hosts: Sequence[str], seed: int) -> dict[str, str]:
    """Files by name: each form of each problem behind the text of a host, with more code behind it."""
    rng = random.Random(seed)
    files = {}
    for number, problem in enumerate(problems):
        for form, text in forms(problem):
            files[f"planted_{number:03d}_{form}.py"] = f"{rng.choice(hosts)}\n\n{text}\n\n\nLAST = {rng.random()}\n"
    return files


def forms(problem: Problem) -> Iterator[tuple[str, str]]:
    """(name, text): as it is, moved into a class, its docstring as comments, and without that but with other names."""
    program = problem.prompt + problem.solution
    yield "whole", program
    yield "indented", "class Answers:\n" + textwrap.indent(program, "\t")
    function = next(node for node in ast.parse(program).body[::-1] if isinstance(node, ast.FunctionDef))
    docstring = ast.get_docstring(function) or ""
    if len(docstring.split()) >= TEXT_WORDS:
        yield "commented", "\n".join(f"# {line}" for line in docstring.upper().splitlines())
    lines = ast.get_source_segment(program, function)
    if lines and docstring:
        body = program.split("\n")[function.body[1].lineno - 1 : function.end_lineno]
        head = f"def {function.name}({', '.join(argument.arg for argument in function.args.args)}):"
        text = renamed("\n".join([head, *body]) + "\n")
        if text.count(" ") and len(list(tokenize.generate_tokens(io.StringIO(text).readline))) >= RENAMED_TOKENS:
            yield "renamed", text


def renamed(program: str) -> str:
    """The function with other names for itself, its parameters and whatever it assigns."""
    tree = ast.parse(program)
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    names += [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    names += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    other = {name: f"other_{number}" for number, name in enumerate(dict.fromkeys(names))}
    tokens = []
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(program).readline):
        is_own = token.type == tokenize.NAME and token.string in other and before != "."
        tokens.append((token.type, other[token.string] if is_own else token.string))
        before = token.string
    return tokenize.untokenize(tokens)


def edited(text: str, share: float, rng: random.Random) -> str:
    """The text with other words in about `share` of its lines, as a copy that went its own way."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if rng.random() < share and not line.startswith("from __future__"):  # where no other name may stand
            lines[number] = " ".join(map(_other, line.split(" ")))
    return "\n".join(lines)


def _other(word: str) -> str:
    """Another name for a name; anything else as it is."""
    reserved = keyword.iskeyword(word) or keyword.issoftkeyword(word)
    return f"{word}_too" if word.isidentifier() and len(word) > 2 and not reserved else word

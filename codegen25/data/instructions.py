"""Instructions made from the corpus itself: what people wrote about their functions, and bugs that we plant in them.

A record keeps the document that it was made from and its licence; a response is always the words of that document.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from codegen25.data.bugs import plant
from codegen25.data.corpus import Corpus
from codegen25.data.document import Document, write_text
from codegen25.data.functions import Definition, definitions

# Characters of a function: less is trivial, more does not fit a small window beside its prompt.
MIN_CHARACTERS, MAX_CHARACTERS = 80, 1500
# Words that say something.
MIN_DOCSTRING_WORDS, MIN_COMMENT_WORDS = 4, 3
MAX_DOCSTRING_CHARACTERS = 600
MAX_LINES_BELOW_COMMENT = 10

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Asked:
    """A prompt and its response; `bug` is the kind of bug that was planted, "" for none."""

    prompt: str
    response: str
    bug: str = ""


@dataclass(frozen=True)
class Record:
    """A line of the file. `document` is the id of the document that it was made from, in the corpus."""

    task: str
    prompt: str
    response: str
    bug: str
    document: str
    source: str
    path: str
    license: str


@dataclass(frozen=True)
class _Block:
    """A function by itself: its text, the lines of it, its tree, and its docstring's text where it has one."""

    text: str
    lines: Sequence[str]
    node: Function
    docstring: str | None

    def fenced(self, text: str) -> str:
        return f"```python\n{text.rstrip()}\n```"


def _implement(block: _Block, rng: random.Random) -> Asked | None:
    """A docstring becomes its function."""
    if block.docstring is None:
        return None
    if rng.random() < 0.3:
        name = f"`{block.node.name}({ast.unparse(block.node.args)})`"
        phrase = rng.choice(("Write a Python function {}.", "Implement {} in Python.", "Write {}:"))
        return Asked(f"{phrase.format(name)}\n\n{inspect.cleandoc(block.docstring)}", block.text)
    phrase = rng.choice(("Complete this function.", "Implement this function.", "Write the body of this function."))
    head = "".join(block.lines[: block.node.body[0].end_lineno])
    return Asked(f"{phrase}\n\n{block.fenced(head)}", block.text)


def _describe(block: _Block, rng: random.Random) -> Asked | None:
    """A function becomes its docstring."""
    if block.docstring is None:
        return None
    first = block.node.body[0]
    assert first.end_lineno is not None
    before, own = block.lines[: first.lineno - 1], block.lines[first.lineno - 1 : first.end_lineno]
    bare = "".join([*before, *block.lines[first.end_lineno :]])
    phrase = rng.choice(
        ("Write a docstring for this function.", "What does this function do? Answer as its docstring.",
         "Document this function.")
    )  # fmt: skip
    indent = " " * first.col_offset
    return Asked(f"{phrase}\n\n{block.fenced(bare)}", "".join(line.removeprefix(indent) for line in own))


def _continue(block: _Block, rng: random.Random) -> Asked | None:
    """A comment becomes the code below it."""
    places = list(_commented(block))
    if not places:
        return None
    first, last = rng.choice(places)
    phrase = rng.choice(("Write the code that the last comment describes.", "Continue below the comment."))
    above, below = "".join(block.lines[:first]), "".join(block.lines[first:last])
    return Asked(f"{phrase}\n\n{block.fenced(above)}", below)


def _repair(block: _Block, rng: random.Random) -> Asked | None:
    """A function with a bug planted in it becomes what it was."""
    bug = plant(block.text, rng)
    if bug is None:
        return None
    phrase = rng.choice(
        ("Fix the bug in this function.", "This function has a bug. Correct it.", "Find and fix the mistake.")
    )
    return Asked(f"{phrase}\n\n{block.fenced(bug.source)}", block.text, bug.kind)


TASKS: dict[str, Callable[[_Block, random.Random], Asked | None]] = {
    "implement": _implement,
    "describe": _describe,
    "continue": _continue,
    "repair": _repair,
}


def records(document: Document, seed: int, each: int = 1) -> list[Record]:
    """Up to `each` records of every task, made from a Python file; a function of the document and the seed alone.

    Raises SyntaxError when it does not parse.
    """
    rng = random.Random(f"{seed}/{document.id}")
    candidates = [one for one in definitions(document.content) if _is_candidate(one.node)]
    found = []
    for task, make in TASKS.items():
        rng.shuffle(candidates)
        made = (asked for one in candidates if (block := _block(one)) and (asked := make(block, rng)))
        found += [
            Record(
                task, asked.prompt, asked.response, asked.bug,
                document.id, document.source, document.path, document.license,
            )
            for asked, _ in zip(made, range(each), strict=False)
        ]  # fmt: skip
    return found


@dataclass
class Counts:
    """What was written, and what was left out and why: numbers of records by task and by kind of bug, and of others."""

    records: int = 0
    tasks: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(TASKS, 0)))
    bugs: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        self.records += 1
        self.tasks[record.task] += 1
        if record.bug:
            self.bugs[record.bug] += 1

    def text(self) -> str:
        """A line for each number, below what it counts."""
        groups = (("tasks", self.tasks), ("planted bugs", self.bugs), ("left out", self.left_out))
        return "\n".join(
            line
            for name, counts in groups
            for line in (name, *(f"  {number:>9,}  {what}" for what, number in counts.most_common()))
        ) + "\n"  # fmt: skip


def write_instructions(
    corpus: Corpus, out: Path, *, split: str = "train", seed: int = 0, each: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Counts:  # fmt: skip
    """Write the records of a split's Python files as JSON lines, each prompt once.

    The same corpus and settings give the same bytes. `progress` is called with documents done and in all. Raises
    CodegenError when the split is not there or not whole.
    """
    total = sum(entry["documents"] for entry in corpus.manifest["splits"].get(split, ()))
    counts = Counts()
    seen: set[bytes] = set()

    def rows() -> Iterator[str]:
        for done, document in enumerate(corpus.documents(split), 1):
            for record in _records(document, seed, each, counts):
                prompt = hashlib.sha256(record.prompt.encode()).digest()
                if prompt in seen:
                    counts.left_out["records with a prompt seen before"] += 1
                    continue
                seen.add(prompt)
                counts.add(record)
                yield json.dumps(asdict(record), ensure_ascii=False) + "\n"
            progress(done, total)

    write_text(out, rows())
    return counts


def _records(document: Document, seed: int, each: int, counts: Counts) -> list[Record]:
    if document.language != "python" or document.kind != "code":
        counts.left_out["documents in other languages"] += 1
        return []
    try:
        return records(document, seed, each)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the ways in which Python's parser refuses a text
        counts.left_out["documents that do not parse"] += 1
        return []


def _is_candidate(node: ast.AST) -> bool:
    """Whether a definition is a function that does something and is no test, whose name says all there is to say."""
    return isinstance(node, Function) and _does_something(node) and not node.name.startswith("test")


def _block(definition: Definition) -> _Block | None:
    """The block of a function; None when it has not the length that we want."""
    block = definition.block
    if block is None or not MIN_CHARACTERS <= len(block.text) <= MAX_CHARACTERS:
        return None
    assert isinstance(block.node, Function)
    lines = [f"{line}\n" for line in block.text.removesuffix("\n").split("\n")]  # as the parser counts them
    return _Block(block.text, lines, block.node, _docstring(block.node))


def _docstring(node: Function) -> str | None:
    """A docstring on lines of its own that says something; None where there is no such one."""
    first = node.body[0]
    text = ast.get_docstring(node, clean=False)
    if text is None or len(node.body) < 2 or first.end_lineno is None:
        return None
    is_apart = node.lineno < first.lineno and first.end_lineno < node.body[1].lineno
    is_said = len(text.split()) >= MIN_DOCSTRING_WORDS and len(text) <= MAX_DOCSTRING_CHARACTERS
    return text if is_apart and is_said else None


def _does_something(node: Function) -> bool:
    """Whether there is more than a docstring, `pass`, `...` or a single `raise`."""
    body = [one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    return len(body) > 1 or (len(body) == 1 and not isinstance(body[0], ast.Pass | ast.Raise))


_SAYS_NOTHING = re.compile(r"#[\s!:]*(?:type:|noqa|pylint|pragma|fmt:|isort:|mypy:|todo|fixme|xxx|hack)", re.I)


def _commented(block: _Block) -> Iterator[tuple[int, int]]:
    """Runs of lines [first, last), from 0, of statements directly below a comment that says something."""
    if not any(_is_comment(block.lines, at) for at in range(len(block.lines))):
        return
    for node in ast.walk(block.node):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for number, statement in enumerate(body):
            first = statement.lineno - 1
            if not _is_comment(block.lines, first - 1) or isinstance(statement, Function | ast.ClassDef):
                continue
            last = _end_of_run(block.lines, body[number:])
            if last - first <= MAX_LINES_BELOW_COMMENT:
                yield first, last


def _is_comment(lines: Sequence[str], at: int) -> bool:
    line = lines[at].strip()
    if not line.startswith("#"):
        return False
    words = re.findall(r"[^\W\d_]{2,}", line)
    return (
        line.startswith("#") and len(words) >= MIN_COMMENT_WORDS and "=" not in line and not _SAYS_NOTHING.match(line)
    )


def _end_of_run(lines: Sequence[str], statements: Sequence[ast.stmt]) -> int:
    """Where the statements end that follow without an empty line or a comment between them."""
    last = statements[0].end_lineno or statements[0].lineno
    for statement in statements[1:]:
        if statement.lineno != last + 1:
            break
        last = statement.end_lineno or statement.lineno
    return last

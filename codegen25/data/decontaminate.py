"""Keep the problems of benchmarks out of the corpus: whole texts, word 12-grams, and code whose names were changed.

All is compared as `lexemes` sees it, so indents, line ends, wrapping, quotes, parentheses, `#` before lines and the
escapes of JSON, strings and HTML hide nothing. Guaranteed, whatever stands around it and wherever in a file it does:

benchmark text    A docstring, a prompt in prose or a test, whole, of at least MIN_TEXT words: the same words in the
                  same order, in either case. A solution of at least MIN_CODE lexemes, or that many with its signature
                  when the name has at least MIN_NAME letters, with the type hints or without: the same lexemes.
                  Comments may have been added to code or taken out.
benchmark n-gram  Any NGRAM words in a row of a program or a test, two of which are more than a number, a keyword or a
                  common function: without those a row such as `for i in range(n) for j in range(i + 1, n)` is common.
benchmark code    A whole solution of MIN_RENAMED lexemes, or RUN in a row of a longer one, whatever its variables and
                  functions are called; keywords, signs, numbers, methods and the words of strings are the same. Half
                  of the lexemes must be more than a new name, which prose is not.

Not guaranteed: a shorter solution without its docstring and signature, of which `return x + y` is one; code alone
behind other signs than `#` on each line; an answer written in another way; and a translation to another language,
unless words of the docstring came along.
"""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from codegen25.data.lexemes import KEYWORDS, Flags, Lexemes, Stream, grams
from codegen25.data.problems import Problem, humaneval, read_problems
from codegen25.data.shingles import Hashes
from codegen25.data.source import MAX_BYTES

__all__ = ["REASONS", "Benchmarks", "Hit", "Pieces", "Problem", "humaneval", "pieces_of", "read_problems"]

REASONS = TEXT, GRAM, CODE = "benchmark text", "benchmark n-gram", "benchmark code"

NGRAM = 12
MIN_TEXT, MIN_CODE, MIN_NAME = 8, 7, 4
MIN_RENAMED, RUN = 14, 40

# `assert` is left out: beside the candidate's name it makes a test.
_COMMON_WORDS = (
    "abs all any bool dict enumerate float int isinstance len list map max min object ord chr print range reversed "
    "round self set sorted str sum tuple type zip zero one two three four five six seven eight nine ten"
)
_COMMON = frozenset(f"{KEYWORDS} {_COMMON_WORDS}".lower().split()) - {"assert"}
_TELLING = re.compile(rb"[a-z_]\w\w")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Hit:
    """What was found: of which benchmark, how (one of REASONS), and which problem at which line."""

    benchmark: str
    how: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Needle:
    """Lexemes of a problem that a text must not hold: `count` of `stream` from `at` on.

    `names` are flags of the stream's: what is marked may be called otherwise. With None nothing may.
    """

    problem: Problem
    stream: Stream
    at: int
    count: int
    names: Flags | None = None

    def form(self, stream: Stream, at: int) -> Sequence[bytes | int]:
        if self.names is None:
            return stream.exact(at, self.count)
        return stream.renamed(at, self.names[self.at : self.at + self.count])

    def stands(self, stream: Stream, at: int) -> bool:
        if self.names is None and not self._alike(stream, at):
            return False
        return at + self.count <= len(stream) and self.form(stream, at) == self.form(self.stream, self.at)

    def _alike(self, stream: Stream, at: int) -> bool:
        """Whether all hashes are the same: a needle may be long, and its start may stand in every line."""
        own = self.stream.hashes[self.at : self.at + self.count]
        return np.array_equal(stream.hashes[at : at + self.count], own)


class _Index:
    """Needles by the hash of their first `n` lexemes."""

    def __init__(self, n: int, *, renamed: bool = False) -> None:
        self.n, self.renamed = n, renamed
        self._needles: dict[int, list[_Needle]] = {}
        self._known: set[bytes] = set()

    def add(self, needles: Iterable[_Needle], hashes: Hashes) -> None:
        """Each needle that says something, once. `hashes` are the grams of the stream that they are of."""
        for needle in needles:
            form = needle.form(needle.stream, needle.at)
            key = hashlib.sha256(repr(form).encode()).digest()
            if key not in self._known and _says(form):
                self._known.add(key)
                self._needles.setdefault(int(hashes[needle.at]), []).append(needle)

    def grams(self, stream: Stream) -> Hashes:
        return grams(stream.skeleton() if self.renamed else stream.hashes, self.n)

    def close(self) -> None:
        """Make the table that most places of a text end at: sparse, so that few pass by chance."""
        del self._known
        bits = max(16, (64 * len(self._needles)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._table: Flags = np.zeros(1 << bits, dtype=np.bool_)
        hashes = np.fromiter(self._needles, dtype=np.uint64, count=len(self._needles))
        self._table[(hashes >> self._shift).astype(np.intp)] = True

    def find(self, stream: Stream) -> tuple[_Needle, int] | None:
        """The first needle that stands in the stream, and where."""
        hashes = self.grams(stream)
        places = np.flatnonzero(self._table[(hashes >> self._shift).astype(np.intp)])
        for at, value in zip(places.tolist(), hashes[places].tolist(), strict=True):
            for needle in self._needles.get(value, ()):
                if needle.stands(stream, at):
                    return needle, at
        return None


class Benchmarks:
    """What is looked for, made once from the problems and used on many texts."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._texts, self._grams = _Index(MIN_TEXT), _Index(NGRAM)
        self._code, self._renamed = _Index(MIN_CODE), _Index(MIN_RENAMED, renamed=True)
        known: set[tuple[str, ...]] = set()
        for problem in problems:
            # All the holes that infilling makes in one program leave the same program.
            key = (*f"{problem.prompt}{problem.solution}{problem.suffix}".split(), "\0", *problem.test.split())
            if key not in known:
                known.add(key)
                self._add(problem)
        for index in (self._texts, self._grams, self._code, self._renamed):
            index.close()

    def found(self, text: str, language: str) -> Hit | None:
        """The first problem that a text holds, by the order of REASONS. `language` decides what a comment is."""
        lexemes = Lexemes(text, slashes=_slashes(language))
        words, code = [lexemes.words()], lexemes.code()
        rules = ((TEXT, self._texts, words), (TEXT, self._code, code), (GRAM, self._grams, words))
        for how, index, streams in (*rules, (CODE, self._renamed, code)):
            for stream in streams:
                if found := index.find(stream):
                    needle, at = found
                    detail = f"{needle.problem.name}, line {stream.line(at)}"
                    return Hit(needle.problem.benchmark, how, detail)
        return None

    def _add(self, problem: Problem) -> None:
        pieces = pieces_of(problem)
        for text in pieces.texts:
            words = Lexemes(text).words()
            if len(words) >= MIN_TEXT:
                self._texts.add([_Needle(problem, words, 0, len(words))], self._texts.grams(words))
        for text in pieces.running:
            words = Lexemes(text).words()
            hashes = self._grams.grams(words)
            self._grams.add((_Needle(problem, words, at, NGRAM) for at in _telling(words)), hashes)
        for stream in _streams([*pieces.code, *pieces.signed]):
            if len(stream) >= MIN_CODE:
                self._code.add([_Needle(problem, stream, 0, len(stream))], self._code.grams(stream))
        for stream in _streams(pieces.code):
            self._add_renamed(problem, stream)

    def _add_renamed(self, problem: Problem, stream: Stream) -> None:
        run = min(len(stream), RUN)
        if run < MIN_RENAMED:
            return
        names = stream.unquoted()
        needles = (_Needle(problem, stream, at, run, names) for at in range(len(stream) - run + 1))
        self._renamed.add(needles, self._renamed.grams(stream))


def _streams(texts: list[str]) -> list[Stream]:
    """Code with its comments and without, whatever may be one; each stream once."""
    views = [view for text in texts for slashes in (False, True) for view in Lexemes(text, slashes=slashes).code()]
    return list({(view.data, view.starts.tobytes()): view for view in views}.values())


def _slashes(language: str) -> bool:
    """Whether `//` starts a comment; in Python it divides."""
    return language.lower() != "python"


def _telling(words: Stream) -> Iterator[int]:
    """Where grams start that hold two words, not the same, that are not common."""
    rows = words.exact(0, len(words))
    telling = [one if _TELLING.match(one) and one.decode() not in _COMMON else b"" for one in rows]
    for at in range(len(rows) - NGRAM + 1):
        if len(set(telling[at : at + NGRAM]) - {b""}) >= 2:
            yield at


def _says(form: Sequence[bytes | int]) -> bool:
    """Whether at least half of the lexemes are more than a name that stands there for the first time."""
    return 2 * len({one for one in form if isinstance(one, int)}) <= len(form)


@dataclass(frozen=True)
class Pieces:
    """What a problem is made of: texts that count whole, texts of which every n-gram does, code, and signed code."""

    texts: list[str]
    running: list[str]
    code: list[str]
    signed: list[str]


def pieces_of(problem: Problem) -> Pieces:
    """What of a problem is looked for."""
    # As the parser counts lines, which are cut out by their numbers.
    program = re.sub(r"\r\n?", "\n", problem.prompt + problem.solution + problem.suffix)
    # A file taken whole is its own answer.
    answer = problem.solution + problem.suffix or program
    texts, running, code, signed = [problem.test], [program, problem.test], [answer], []
    tree = _parsed(program)
    if tree is None:
        # The prompt is prose, and then only the answer is a program; or all of it is in another language.
        texts.append(problem.prompt)
        running += [problem.prompt, answer]
        program, tree = answer, _parsed(answer)
    lines = program.split("\n")
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, _FUNCTIONS):
            texts += _docstrings(lines, node)
            if body := _body(lines, node):
                code.append(body)
                signed += [f"{signature}\n{body}" for signature in _signatures(lines, node)]
    if problem.entry_point:
        named = re.sub(r"\bcandidate\b", lambda _: problem.entry_point, problem.test)
        texts.append(named)
        running.append(named)
    return Pieces(texts, running, code, signed)


def _parsed(program: str) -> ast.Module | None:
    if len(program) > MAX_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes are not ours to report
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _docstrings(lines: list[str], node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Texts that stand in a function as statements, as they are written: one of HumanEval's follows an import."""
    return ["\n".join(lines[one.lineno - 1 : one.end_lineno]) for one in node.body if _is_text(one)]


def _body(lines: list[str], node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The lines of a function behind its docstring; none when there are none."""
    statements = [one for one in node.body if not _is_text(one)]
    return "\n".join(lines[statements[0].lineno - 1 : node.end_lineno]) if statements else ""


def _signatures(lines: list[str], node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """As written, and without type hints; none when the name is too short to tell."""
    if len(node.name) < MIN_NAME:
        return []
    written = "\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1])
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return [written, f"def {node.name}({ast.unparse(node.args)}):"]

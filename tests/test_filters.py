"""Filters: the paths and texts that each reason is for, those that look like it, and slow references for the counts."""

import ast
import json
import random
import string
import warnings
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codegen25.data import filters
from codegen25.data.filters import REASONS, decode, reject_content, reject_path
from codegen25.data.source import MAX_BYTES

CODE = 'def area(width: int, height: int) -> int:\n    """The area."""\n    return width * height\n'
# Letters, digits and blank space of several scripts, and every end of line that Unicode knows.
TEXTS = st.text(
    st.one_of(st.sampled_from("aZ09 _\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029é漢Ⅷ²٣🙂"), st.characters(codec="utf-8"))
)


# Paths


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("pip/_vendor/rich/color.py", "vendored copy"),
        ("src/third_party/zlib/inflate.c", "vendored copy"),
        ("web/node_modules/left-pad/index.js", "vendored copy"),
        ("Vendor/lib.rb", "vendored copy"),
        ("joblib/externals/loky/backend.py", "vendored copy"),
        ("tests/data/pass/module.py", "test data"),
        ("package/tests/unit/Expected/out.py", "test data"),
        ("app/__snapshots__/view.test.js.snap", "test data"),
        ("src/testdata/sample.go", "test data"),
        ("api/service_pb2.py", "generated"),
        ("api/service_pb2_grpc.pyi", "generated"),
        ("api/service.pb.go", "generated"),
        ("package-lock.json", "generated"),
        ("npm-shrinkwrap.json", "generated"),
        ("yarn.lock", "generated"),
        ("pnpm-lock.yaml", "generated"),
        ("Cargo.lock", "generated"),
        ("dist/index.js.map", "generated"),
        ("Form1.Designer.cs", "generated"),
        ("static/jquery-3.6.0.min.js", "minified"),
        ("static/site-min.css", "minified"),
    ],
)
@pytest.mark.parametrize("tests", [True, False])
def test_paths_that_are_never_wanted(path: str, reason: str, tests: bool) -> None:
    assert reject_path(path, tests=tests) == reason


@pytest.mark.parametrize(
    "path",
    [
        "tests/test_area.py", "package/tests/__init__.py", "area_test.py", "conftest.py", "app/tests.py",
        "area_test.go",
        "src/__tests__/area.js", "src/area.test.ts", "src/area.spec.tsx", "test/area.js", "test.js",
        "spec/area_spec.rb",
        "spec/helper.js", "src/test/java/Area.java", "AreaTest.java", "AreaTests.cs", "e2e/login.ts",
    ],
)  # fmt: skip
def test_test_code_is_dropped_when_it_is_not_wanted(path: str) -> None:
    assert reject_path(path, tests=False) == "test code"
    assert reject_path(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "src/area.py", "numpy/testing/utils.py", "Latest.java", "contest.py", "attest.py", "protest/march.py",
        "spec/document.py", "data/loader.py", "assets/index.js", "vendor.py", "fixtures.py", "administrator.js",
        "admin.js", "src/latest/main.go", "lock.py", "locks/spin.lock.c", "testing.py", "greatest_common.py", "map.js",
        "minutes.js", "src/fastest.ts", "snapshots/store.py", "samples/hello.c", "generated.py",
        "lib/externals/Plugin.js",
    ],
)  # fmt: skip
def test_paths_that_only_look_like_it_stay(path: str) -> None:
    assert reject_path(path, tests=False) is None


def test_data_of_tests_lies_below_them() -> None:
    assert reject_path("data/tests/test_loader.py") is None
    assert reject_path("data/tests/test_loader.py", tests=False) == "test code"


# Bytes


@pytest.mark.parametrize(
    ("data", "text", "reason"),
    [
        (b"x = 1\n", "x = 1\n", None),
        (b"\xef\xbb\xbfx = 1\n", "x = 1\n", None),
        (b"a\r\nb\rc\n", "a\r\nb\rc\n", None),
        ("π = 3\n".encode(), "π = 3\n", None),
        (b"", None, "empty"),
        (b" \r\n\t\n", None, "empty"),
        (b"\xef\xbb\xbf", None, "empty"),
        (b"caf\xe9", None, "not UTF-8"),
        (b"\xed\xa0\x80", None, "not UTF-8"),
        ("x = 1\n".encode("utf-16"), None, "binary"),
        (b"\x7fELF\0", None, "binary"),
        (b"a" * MAX_BYTES, "a" * MAX_BYTES, None),
        (b"a" * (MAX_BYTES + 1), None, "too large"),
    ],
)
def test_decode(data: bytes, text: str | None, reason: str | None) -> None:
    assert decode(data) == (text, reason)


@given(st.binary())
def test_any_bytes_are_a_text_or_have_a_reason(data: bytes) -> None:
    text, reason = decode(data)
    assert (text is None) == (reason in REASONS)
    if text is not None:
        assert text.encode() == data.removeprefix(b"\xef\xbb\xbf")


# Counts, beside the slow way to count them


@given(TEXTS)
@example("")
@example("\n\n")
@example("é" * 3)
def test_counts_equal_those_taken_character_by_character(text: str) -> None:
    lengths = [len(line.rstrip("".join(_ends()))) for line in _lines(text)] or [0]
    assert filters.line_lengths(text) == (max(lengths), sum(lengths) / len(lengths))
    size = max(len(text), 1)
    assert filters.alphanumeric_share(text) == len([one for one in text if one.isalnum()]) / size
    assert filters.alphabetic_share(text) == len([one for one in text if one.isalpha()]) / size


def _ends() -> list[str]:
    return [chr(number) for number in (10, 11, 12, 13, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029)]


def _lines(text: str) -> list[str]:
    """The lines with their ends, a character at a time; a carriage return and a newline are one end."""
    lines = [""]
    for number, one in enumerate(text):
        lines[-1] += one
        if one in _ends() and text[number : number + 2] != "\r\n":
            lines.append("")
    return [line for line in lines if line]


# Texts


@pytest.mark.parametrize(
    "head",
    [
        "# Generated by the protocol buffer compiler.  DO NOT EDIT!",
        "// Code generated by protoc-gen-go. DO NOT EDIT.",
        "/* Generated by Cython 3.0.0 */",
        "/* A Bison parser, made by GNU Bison 3.8.2.  */",
        "// This file was automatically generated by SWIG",
        "# Autogenerated by a tool",
        "# This file is autogenerated by pip-compile",
        "/* Copyright somebody */\n/* @generated */",
        "# Automatically generated code: write the grammar instead",
        "# This file is auto-generated. Do not edit by hand.",
        "# coding: utf-8\n\n# file generated by setuptools-scm",
    ],
)
def test_marks_of_generators(head: str) -> None:
    assert reject_content(f"{head}\n{CODE}", "c", "area.c") == "generated"


@pytest.mark.parametrize(
    "text",
    [
        '"""Methods generated by us, and the code generated by others."""\n' + CODE,
        '"""The names are\ngenerated by the compiler.\n"""\n' + CODE,
        '__version__ = "1.0"  # DO NOT EDIT THIS LINE MANUALLY\n' + CODE,
        f'MARK = """\n// Code generated by this. DO NOT EDIT.\n"""\n{CODE}',
        f"import re\n\n# Generated by whoever calls it\n{CODE}",
        CODE * 40 + "# Code generated by another. DO NOT EDIT.\n",
    ],
)
def test_prose_about_generators_stays(text: str) -> None:
    assert reject_content(text, "python", "area.py") is None


def test_lines() -> None:
    assert reject_content(CODE + f'x = "{"ab " * 400}"\n', "python", "a.py") == "longest line"
    assert reject_content("\n".join(f'x{n} = "{"ab " * 40}"' for n in range(9)), "python", "a.py") == "mean line"
    assert reject_content("word " * 400, "markdown", "a.md") is None
    at_the_bound = "a" * 1000 + "\n" * 20
    assert reject_content(at_the_bound, "c", "a.c") is None
    assert reject_content("a" + at_the_bound, "c", "a.c") == "longest line"


def test_shares_of_letters_and_digits() -> None:
    assert reject_content("+-*/" * 12 + "a\n" * 8, "c", "a.c") == "alphanumeric share"
    assert reject_content("漢字" * 20, "c", "a.c") is None
    numbers = "\n".join("12345 67890" for _ in range(50))
    assert reject_content(numbers, "matlab", "a.m") == "alphabetic share"
    assert reject_content(numbers, "c", "a.c") is None


def test_data_formats_and_markup() -> None:
    assert reject_content('{"a": 1}', "json", "a.json") == "data size"
    assert reject_content("key: value\n" * 600, "yaml", "a.yml") == "data size"
    assert reject_content(json.dumps({"name": "something", "what": "a description of it"}), "json", "a.json") is None
    xml = '<?xml version="1.0"?>\n<a>hello world</a>\n'
    assert reject_content(xml, "c", "a.c") == "XML"
    assert reject_content(xml, "xslt", "a.xslt") is None
    page = "<html><head><script>\nlet a = 1;\n</script><style>p {}</style></head><!-- {} -->\n<p>{}</p>\n</html>\n"
    assert reject_content(page.replace("{}", "word\n" * 60), "html", "a.html") is None
    assert reject_content(page.replace("{}", ""), "html", "a.html") == "little visible text"
    hidden = page.replace("let a", "let words = 'some words '\n" * 30 + "let a")
    assert reject_content(hidden.replace("{}</p>", "word " * 30 + "</p>"), "html", "a.html") == "little visible text"


def test_minified_scripts() -> None:
    packed = "function f(a,b){return a+b}var x=f(1,2);if(x>2){y(x,function(q){return q.z()})}"
    text = "\n".join([packed] * 20)
    assert reject_content(text, "javascript", "a.js") == "minified"
    assert reject_content(packed, "javascript", "a.js") is None
    assert reject_content(text, "c", "a.c") is None
    names = "\n".join(f"Object.defineProperty(apiLoader.services.licenseManager{n});" for n in range(20))
    assert reject_content(names, "javascript", "a.js") is None
    written = "function add(a, b) {\n    return a + b;\n}\n\n"
    assert reject_content(written * 30, "javascript", "a.js") is None


def test_tables_of_literals() -> None:
    draw = random.Random(1)
    numbers = [f"{draw.random():.15f}" for _ in range(400)]
    rows = ",\n".join("    " + ", ".join(numbers[at : at + 4]) for at in range(0, 400, 4))
    assert reject_content(f"TABLE = [\n{rows}\n]\n", "python", "a.py") == "literal table"
    table = ",\n".join(f"0x{draw.getrandbits(32):08x}" for _ in range(400))
    assert reject_content(f"int table[] = {{\n{table}\n}};\n", "c", "a.c") == "literal table"
    encoded = "\n".join("".join(draw.choices(string.ascii_letters + string.digits, k=76)) for _ in range(40))
    assert reject_content(f'DATA = """\n{encoded}\n"""\n', "python", "a.py") == "literal table"
    arithmetic = "".join(f"x{n} = f{n}(y{n} + {n}, width={n + 1})\n" for n in range(300))
    assert reject_content(arithmetic, "python", "a.py") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("print 'hello'\n", "Python 2"),
        ("try:\n    pass\nexcept ValueError, error:\n    raise Oops, 'no'\n", "Python 2"),
        ("mode = 0755\n", "Python 2"),
        ("def broken(:\n    pass\n", "syntax error"),
        ("{{ template }} and more of it\n", "syntax error"),
        ("x = '\\d'\nif x is 'a': pass\n", None),
        ("print('print this')\n", None),
        ("(" * 100_000, "syntax error"),
        ("-" * 300_000 + "1", "syntax error"),
        ("x = 1" + " + 1" * 200_000, "syntax error"),
        ("def add(a, a):\n    return a\n", "syntax error"),
        ("def set(x):\n    print(x)\n    global x\n", "syntax error"),
        ("nonlocal x\n", "syntax error"),
        ("from __future__ import braces\n", "syntax error"),
        ("data = await fetch()\ndata\n", None),
        ("if done:\n    return\n", None),
    ],
)
@pytest.mark.filterwarnings("error")
def test_python_must_be_a_module(text: str, reason: str | None) -> None:
    assert filters._syntax(text, "python", "a.py") == reason
    assert filters._syntax(text, "ruby", "a.rb") is None


def test_a_finally_in_each_finally_costs_nothing() -> None:
    """Generating code for these would take 2^90 steps."""
    nested = "".join(f"{' ' * depth}try: pass\n{' ' * depth}finally:\n" for depth in range(90))
    assert filters._syntax(f"{nested}{' ' * 90}pass\n", "python", "a.py") is None


STATEMENTS = st.sampled_from(
    ["x = 1", "global x", "nonlocal x", "return x", "yield x", "await x", "break", "def f(x, y): return x", "x +",
     "def f(x, x): pass", "from a import *", "from __future__ import annotations", "from __future__ import no",
     "[x := 1 for x in y]", "*a = y", "print x", "class A: x = (yield)", "del x", "'''x", "\ud800"]
)  # fmt: skip


@given(st.lists(STATEMENTS, max_size=5), st.sampled_from(["", "def f():", "class A:", "async def f():"]))
@example(["x = 1"], "")
def test_syntax_lies_between_the_grammar_and_the_compiler(statements: list[str], head: str) -> None:
    """Whatever the grammar refuses is an error, and nothing that compiles is."""
    text = f"{head}\n" + "".join(f"{'    ' * bool(head)}{one}\n" for one in statements)
    kept = filters._syntax(text, "python", "a.py") is None
    assert _accepts(compile, text) <= kept <= _accepts(ast.parse, text)


def _accepts(reads: Callable[[str, str, str], object], text: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reads(text, "a.py", "exec")
        except (SyntaxError, ValueError):
            return False
    return True


WORDS = (
    "Generated", "GENERATED", "generated", "autogenerated", "auto-generated", "machine generated", "@generated", "by",
    "from", "using", "automatically", "DO NOT EDIT", "do not", "edit", "modify", "THIS LINE", "this file is", "is",
    "code", "A Bison parser, made by", "a lexical scanner generated by", "the", "#", "\n", "\u0130", "\u017f", "\u212a",
    "x" * 1990,
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=8), st.sampled_from([str, str.upper, str.title, str.swapcase]))
@example(["A BI\u017fON PAR\u017fER, MADE BY"], str)
def test_marks_are_found_as_by_the_expression_alone(words: list[str], cased: Callable[[str], str]) -> None:
    text = cased(" ".join(words))
    found, wanted = filters._mark(text), filters._GENERATED.search(text, 0, filters.HEAD)
    assert (found and found.span()) == (wanted and wanted.span())


@settings(max_examples=200)
@given(TEXTS, st.sampled_from(["python", "html", "json", "javascript", "matlab", "c"]), TEXTS)
def test_any_text_is_kept_or_has_a_known_reason(text: str, language: str, path: str) -> None:
    assert reject_content(text, language, path) in {None, *REASONS}
    assert reject_path(path) in {None, *REASONS}


@pytest.mark.parametrize("unit", ["<script", "<!--", "<", "1e", "1_", "a", "\\x", "</script ", "*", "0x", "{", "#\n"])
@pytest.mark.parametrize("language", ["html", "javascript", "json"])
def test_hostile_repetition_is_read_once(unit: str, language: str) -> None:
    """Time that grows with the square of the length would take hours here."""
    assert reject_content(unit * (MAX_BYTES // len(unit)), language, "a") in {None, *REASONS}


def test_reasons_are_named_once() -> None:
    assert len(set(REASONS)) == len(REASONS)

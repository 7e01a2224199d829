"""Languages: the shared endings that Linguist's rules confuse, hostile names and contents, many processes at once."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.data import languages
from codegen25.data.languages import LANGUAGES, detect

PERL = "use strict;\nmy %seen;\nwhile (<STDIN>) { print unless $seen{$_}++ }\n"
PROLOG = ":- module(family, [parent/2]).\nparent(X, Y) :- father(X, Y).\nparent(X, Y) :- mother(X, Y).\n"
SHARP = "using System;\n\nnamespace A\n{\n    public class B { public int C { get; set; } }\n}\n"
SMALLTALK = (
    "Object subclass: #Counter\n  instanceVariableNames: 'count'!\n\n!Counter methodsFor: 'counting'!\nincrement\n"
)


@pytest.mark.parametrize(
    "path, text, language",
    [
        ("a/b.py", "import os\n", "python"),
        ("setup.pyi", "def f() -> int: ...\n", "python"),
        ("bin/run", "#!/usr/bin/env python3\nprint(1)\n", "python"),
        ("bin/run", "#!/bin/sh\necho\n", "shell"),
        ("a.js", "let a = 1\n", "javascript"),
        ("a.mjs", "export default 1\n", "javascript"),
        ("a.ts", "export const a: number = 1\n", "typescript"),
        ("a.tsx", "export const A = () => <p />\n", "typescript"),
        ("a.ts", '<?xml version="1.0"?>\n<!DOCTYPE TS>\n<TS version="2.1"><context/></TS>\n', None),
        ("a.h", "#ifndef A_H\nint f(void);\n#endif\n", "c"),
        ("a.h", "#pragma once\nnamespace a { template <class T> class B; }\n", "c++"),
        ("a.h", "#import <Foundation/Foundation.h>\n@interface A : NSObject\n@end\n", None),
        ("a.m", "function y = f(x)\n  y = x + 1;\nend\n", "matlab"),
        ("a.v", "module a(input b, output c);\n  assign c = b;\nendmodule\n", "verilog"),
        ("a.pl", PERL, "perl"),
        ("a.pl", "print 'hello';\n", "perl"),
        ("a.pl", "# :- not prolog\nmy $x = 1;\n", "perl"),
        ("a.pl", PROLOG, "prolog"),
        ("A.pm", "package A;\nuse strict;\n1;\n", "perl"),
        ("a.t", "use Test::More tests => 1;\nok(1);\n", "perl"),
        ("a.cs", SHARP, "c-sharp"),
        ("a.cs", "// only a comment\n", "c-sharp"),
        ("a.cs", SMALLTALK, "smalltalk"),
        ("a.sql", "SELECT 1;\n", "sql"),
        (
            "a.sql",
            "CREATE OR REPLACE FUNCTION f() RETURNS int AS $$ BEGIN RETURN 1; END; $$ LANGUAGE plpgsql;\n",
            "sql",
        ),
        ("a.sql", "DECLARE @a INT = 1;\nGO\nSELECT TOP 1 * FROM dbo.t;\n", "sql"),
        ("a.f90", "program a\nend program\n", "fortran"),
        ("a.s", "\t.globl main\nmain:\n\tret\n", "assembly"),
        ("a.cu", "__global__ void f() {}\n", "cuda"),
        ("Dockerfile", "FROM scratch\n", "dockerfile"),
        ("Makefile", "all:\n\techo\n", "makefile"),
        ("CMakeLists.txt", "project(a)\n", "cmake"),
        ("README.md", "# A\n", "markdown"),
        ("a.rst", "A\n=\n", "restructuredtext"),
        ("a.json", '{"a": 1}\n', "json"),
        ("a.yml", "a: 1\n", "yaml"),
        ("a.html", "<html></html>\n", "html"),
        ("a.css", "a { color: red }\n", "css"),
        ("a.xsl", '<xsl:stylesheet version="1.0"/>\n', "xslt"),
        ("a.mpl", "f := proc(x) x end proc;\n", "maple"),
        ("a.ipynb", '{"cells": []}\n', None),
        ("a.xml", "<a/>\n", None),
        ("a.csv", "a,b\n1,2\n", None),
        ("a.txt", "def f(): pass\n", None),
        ("a.log", "x\n", None),
        ("requirements.txt", "numpy\n", None),
        ("a.vue", "<template><p/></template>\n", None),
        ("LICENSE", "MIT License\n", None),
    ],
)
def test_files_as_people_name_them(path: str, text: str, language: str | None) -> None:
    assert detect(path, text) == language


@given(st.text(max_size=30), st.sampled_from(["", ".py", ".pl", ".cs", ".h", ".sql", ".x"]), st.text(max_size=200))
def test_any_name_and_any_text_have_a_known_language_or_none(name: str, ending: str, text: str) -> None:
    found = detect(name + ending, text)
    assert found is None or languages.known(found)
    assert detect(name + ending, text) == found


def test_names_that_are_no_text_and_files_that_are_long() -> None:
    assert detect("a\udcff.py", "x = 1\n") == "python"
    assert detect("a\0b.py", "x = 1\n") == "python"
    assert detect("a.py", "x = '\udcff'\n") == "python"
    assert detect("a.py", "x = 1\n" * 500_000) == "python"


def test_there_are_as_many_as_starcoderdata_has() -> None:
    assert len(LANGUAGES - {"json", "yaml"}) == 86
    assert all(name == name.lower() and " " not in name and "," not in name for name in LANGUAGES)


def test_a_misspelt_language_is_answered_with_the_nearest() -> None:
    assert languages.known("c++") and not languages.known("pyhton")
    assert "python" in languages.nearest("pyhton")
    assert "\n" not in languages.nearest("") + languages.nearest("zzzzzz")


def _many(number: int) -> list[str | None]:
    return [detect(f"{number}/{turn}.h", "class A { int b; };\n" * 10) for turn in range(200)]


def test_processes_and_threads_agree() -> None:
    alone = _many(0)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(_many, range(8))) == [alone] * 8
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        assert processes.map(_many, range(4)) == [alone] * 4

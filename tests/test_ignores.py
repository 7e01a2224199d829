""".gitignore files: git itself is the oracle, and no pattern takes long."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codegen25.data.ignores import Ignores, parse
from codegen25.data.regular import walk

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")
COMMON = [
    "*", "*.py", "!*.py", "a", "!a", "/a", "a/", "!a/", "b/*", "!b/c", "**/c", "a/**", "a/**/c", "/*", "!/b", "*/",
    "!*/", "a/b", "!a/b", "c*", "[ab]", "!b", "# a", "", "\\!a", "\\#a", "b ", "b\\ ", "/b/", "**/a/", "!c.py", "?.py",
    "**", "!**/b", "/**/c.py", "[!a]", "[a-b].py", "[]a]", "[[:alpha:]]", "a**", "*.p[xy]", "a\r", "***/c",
    "[a", "a\\", "?",
]  # fmt: skip
LINES = st.lists(st.one_of(st.sampled_from(COMMON), st.text("abc*?[]!^- .py", max_size=6)), max_size=5)
FOLDERS = st.lists(st.sampled_from("abc"), max_size=3).map("/".join)
NAMES = st.sampled_from(["a", "b", "c", "a.py", "b.py", "c.py", "é", "a]", "!a", "#a", "a b ", "b ", "[x"])


def files_that_git_sees(root: Path) -> set[str]:
    git = ["git", "-c", "core.excludesFile=", "-C", str(root)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    found = subprocess.run(
        [*git, "ls-files", "-z", "--others", "--exclude-standard"], check=True, capture_output=True, text=True
    )
    return set(found.stdout.split("\0")) - {""}


def files_that_we_see(root: Path) -> set[str]:
    def read(folder: str) -> bytes:
        path = root / folder / ".gitignore"
        return path.read_bytes() if path.is_file() else b""

    ignores = Ignores(read)
    found = walk(root, lambda path, folder: path.rpartition("/")[2] == ".git" or ignores.covers(path, folder))
    return {one for one in found if isinstance(one, str)}


@needs_git
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.tuples(FOLDERS, NAMES), max_size=14),
    ignored=st.dictionaries(FOLDERS, LINES, max_size=3),
    top=LINES,
)
def test_the_same_files_are_left_out_as_by_git(
    tmp_path: Path, files: list[tuple[str, str]], ignored: dict[str, list[str]], top: list[str]
) -> None:
    root = tmp_path / "tree"
    shutil.rmtree(root, ignore_errors=True)
    for folder, name in [*files, *((folder, ".gitignore") for folder in {**ignored, "": top})]:
        if not any((root / part).is_file() for part in [folder, *map(str, Path(folder).parents)] if part != "."):
            (root / folder).mkdir(parents=True, exist_ok=True)
            if not (root / folder / name).exists():
                (root / folder / name).write_text("\n".join({**ignored, "": top}.get(folder, [])), newline="")
    assert files_that_we_see(root) == files_that_git_sees(root)


@pytest.mark.parametrize(
    ("line", "matched", "passed"),
    [
        (b"*.py[cod]", ["a.pyc", "x/a.pyo"], ["a.py", "a.pyx"]), (b"/build", ["build"], ["x/build"]),
        (b"docs/*.txt", ["docs/a.txt"], ["docs/x/a.txt", "x/docs/a.txt"]), (b"a/**/b", ["a/b", "a/x/y/b"], ["b", "ab"]),
        (b"**/x/y", ["x/y", "a/x/y"], ["x/a/y"]), (b"x/**", ["x/a", "x/a/b"], ["x", "y/x"]), (b"\\!a", ["!a"], ["a"]),
        (b"a\\ ", ["a "], ["a"]), (b"a ", ["a"], ["a "]), (b"[!a-c]", ["d", "x/z"], ["a", "b", "dd"]),
        (b"[[:digit:]]?", ["1a"], ["aa", "1"]), (b"[]-]", ["]", "-"], ["a"]), ("ü*".encode(), ["üb"], ["ub"]),
        (b"a.b", ["a.b"], ["axb"]), (b"*a*b", ["ab", "xaxxb"], ["xaxxbx", "ba"]),
    ],
)  # fmt: skip
def test_patterns(line: bytes, matched: list[str], passed: list[str]) -> None:
    ignores = Ignores(lambda folder: b"" if folder else line)
    assert [path for path in matched + passed if ignores.covers(path, False)] == matched


@pytest.mark.parametrize("line", [b"", b"   ", b"# a", b"!", b"/", b"[a", b"a\\", b"[[:none:]]", b"\r"])
def test_lines_that_are_no_pattern(line: bytes) -> None:
    assert parse(line) is None


def test_a_byte_order_mark_and_foreign_bytes() -> None:
    ignores = Ignores(lambda folder: b"" if folder else b"\xef\xbb\xbfa\r\n\xff*\n")
    assert ignores.covers("a", False) and ignores.covers("\udcffx", False) and not ignores.covers("b", False)


def test_no_pattern_makes_a_build_stand_still() -> None:
    lines = b"*a" * 60 + b"b\n" + b"/".join([b"**/a"] * 60) + b"/b\n" + b"[a*" * 50 + b"\n"
    ignores = Ignores(lambda folder: b"" if folder else lines)
    deep = "/".join(["a"] * 1000)
    assert not ignores.covers("a" * 250, False) and not ignores.covers(deep, False)
    assert ignores.covers("a" * 250 + "b", False) and ignores.covers(deep + "/b", False)

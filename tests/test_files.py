"""Source files: read exactly, cursors found, text inserted, and written back whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25 import files
from codegen25.errors import CodegenError, UsageError
from codegen25.files import Cursor, Source, read_source, read_stream, replace_file

BOM = b"\xef\xbb\xbf"
# Every kind of line ending, also mixed, and characters of one to four bytes.
PIECES = ["a", "é", "漢", "😀", "\t", " ", "\n", "\r", "\r\n", "\u2028", "\x0c"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)


def source(text: str) -> Source:
    return Source("name.py", text.encode())


# -------------------------------------------------------------------------------------------------------------- cursors


@pytest.mark.parametrize("at", ["12:5", "1:1", "7", "0012:05"])
def test_cursor_is_read(at: str) -> None:
    line, _, column = at.partition(":")
    assert Cursor.parse(at) == Cursor(int(line), int(column) if column else None)


@pytest.mark.parametrize(
    "at",
    [
        "",
        ":",
        "0",
        "0:1",
        "1:0",
        "-1",
        "1:-1",
        "1:",
        ":1",
        "1:2:3",
        "a",
        " 1",
        "1.5",
        "\u0661:\u0661",
        "9" * 5000,
        "1\n",
    ],
)
def test_what_is_no_cursor_is_refused(at: str) -> None:
    with pytest.raises(UsageError, match="write LINE:COL"):
        Cursor.parse(at)


@pytest.mark.parametrize(
    ("line", "column", "offset"),
    [(1, 1, 0), (1, 3, 2), (1, None, 2), (2, 1, 3), (2, 2, 4), (3, 1, 6), (3, None, 7), (4, 1, 8), (4, None, 8)],
)
def test_cursor_to_offset(line: int, column: int | None, offset: int) -> None:
    assert source("ab\r\n😀c\né\n").offset(Cursor(line, column)) == offset


@pytest.mark.parametrize(
    ("line", "column", "remedy"),
    [(5, 1, "line from 1 to 4"), (999_999_999, None, "1 to 4"), (1, 4, "column from 1 to 3")],
)
def test_cursor_outside(line: int, column: int | None, remedy: str) -> None:
    with pytest.raises(CodegenError, match=f"name.py: .*{remedy}"):
        source("ab\n😀c\né\n").offset(Cursor(line, column))


def test_empty_file_has_one_place() -> None:
    assert source("").offset(Cursor(1, 1)) == source("").offset(Cursor(1)) == 0
    with pytest.raises(CodegenError):
        source("").offset(Cursor(1, 2))


@given(TEXTS, st.data())
def test_cursor_and_offset_are_inverse(text: str, data: st.DataObject) -> None:
    it = source(text)
    offset = data.draw(st.integers(0, len(it.text)))
    assert it.offset(it.cursor(offset)) == offset


@given(TEXTS)
def test_lines_are_those_of_universal_newlines(text: str) -> None:
    it = source(text)
    assert it.text == io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8").read()  # Python's own reading
    assert it.cursor(len(it.text)).line == len(it.text.split("\n"))


# --------------------------------------------------------------------------------------------------------------- insert


@given(TEXTS, st.booleans(), st.data())
def test_nothing_inserted_keeps_every_byte(text: str, bom: bool, data: st.DataObject) -> None:
    it = Source("x", (BOM if bom else b"") + text.encode())
    offsets = sorted(data.draw(st.sets(st.integers(0, len(it.text)), max_size=4)))
    assert it.insert([(offset, "") for offset in offsets]) == it.data
    assert "".join(it.parts(offsets)) == it.text


@given(TEXTS, st.data())
def test_insertion_is_what_a_reader_sees(text: str, data: st.DataObject) -> None:
    """The file read again is the text with the spans in place, and taking them out of the bytes gives the old file."""
    it = source(text)
    offsets = sorted(data.draw(st.sets(st.integers(0, len(it.text)), min_size=1, max_size=4)))
    spans = [f"<{number}>" for number in range(len(offsets))]
    new = it.insert(list(zip(offsets, spans, strict=True)))
    parts = it.parts(offsets)
    expected = parts[0] + "".join(span + part for span, part in zip(spans, parts[1:], strict=True))
    assert Source("x", new).text == expected
    for span in spans:
        assert new.count(span.encode()) == 1
        new = new.replace(span.encode(), b"")
    assert new == it.data


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\r\nb\r\n", "a\r\nX\r\nYb\r\n"),
        ("a\nb\n", "a\nX\nYb\n"),
        ("a\rb\r", "a\rX\rYb\r"),
        ("a\r\nb\r\nc\n", "a\r\nX\r\nYb\r\nc\n"),
        ("a\nb\r\nc\n", "a\nX\nYb\r\nc\n"),
    ],
)
@pytest.mark.parametrize("span", ["X\nY", "X\r\nY"])
def test_inserted_lines_end_like_most_lines(before: str, after: str, span: str) -> None:
    assert source(before).insert([(2, span)]).decode() == after


def test_insertion_at_the_end_of_a_crlf_line_stays_in_front_of_it() -> None:
    it = source("ab\r\ncd\r\n")
    assert it.insert([(it.offset(Cursor(1)), "X"), (it.offset(Cursor(2)), "Y")]) == b"abX\r\ncdY\r\n"


def test_byte_order_mark_stays_first() -> None:
    it = Source("x", BOM + b"ab")
    assert it.text == "ab" and it.insert([(0, "X")]) == BOM + b"Xab"


# ----------------------------------------------------------------------------------------------------------------- read


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"caf\xe9\n", "not UTF-8 text .byte 0xe9 at 3"),
        ("x = 1".encode("utf-16"), "binary"),
        (b"\x7fELF\0\0", "binary file .byte 4 is zero"),
        (b"\xed\xa0\x80", "not UTF-8"),  # a surrogate, which CESU-8 writers leave behind
        (b"abc\xf0\x9f\x98", "not UTF-8"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file.py"
    path.write_bytes(data)
    with pytest.raises(CodegenError, match=message) as error:
        read_source(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 4)
    assert read_stream(io.BytesIO(b"abcd"), "x").text == "abcd"
    with pytest.raises(CodegenError, match="larger than"):
        read_stream(io.BytesIO(b"abcde"), "x")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.py", tmp_path):
        with pytest.raises(CodegenError, match="cannot be read"):
            read_source(path)


# -------------------------------------------------------------------------------------------------------------- replace


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.py"
    path.write_bytes(b"old")
    return path


def only(path: Path) -> bool:
    return [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o664])
def test_replace_keeps_the_mode(path: Path, mode: int) -> None:
    path.chmod(mode)
    replace_file(path, b"old", b"new")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == mode and only(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_replace_keeps_the_owner(path: Path) -> None:
    os.chown(path, 1234, 4321)
    path.chmod(0o4755)
    replace_file(path, b"old", b"new")
    now = path.stat()
    assert (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)) == (1234, 4321, 0o4755)


def test_replace_keeps_a_link_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / "link.py"
    link.symlink_to("../file.py")
    replace_file(link, b"old", b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"
    assert [entry.name for entry in link.parent.iterdir()] == ["link.py"]


def test_replace_with_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 126 + ".py")
    path.write_bytes(b"old")
    replace_file(path, b"old", b"new")
    assert path.read_bytes() == b"new" and only(path)


def test_a_file_that_was_changed_meanwhile_is_left(path: Path) -> None:
    path.write_bytes(b"edited")
    with pytest.raises(CodegenError, match="changed meanwhile"):
        replace_file(path, b"old", b"new")
    assert path.read_bytes() == b"edited" and only(path)


def test_a_protected_file_is_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(0o444)
    if os.access(path, os.W_OK):  # root may write everywhere
        monkeypatch.setattr(os, "access", lambda place, mode: bool(Path(place).stat().st_mode & 0o200))
    with pytest.raises(CodegenError, match="read only"):
        replace_file(path, b"old", b"new")
    assert path.read_bytes() == b"old" and only(path)


@pytest.mark.parametrize("call", ["fsync", "fchmod", "replace", "write", "mkstemp"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_every_refusal_leaves_the_file(path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    if call == "replace":
        monkeypatch.setattr(Path, "replace", refuse)
    elif call == "mkstemp":
        monkeypatch.setattr(tempfile, "mkstemp", refuse)
    elif call == "write":
        real = os.fdopen

        def fdopen(handle: int, mode: str) -> Any:
            file = real(handle, mode, buffering=0)
            return Refusing(file)

        class Refusing(io.RawIOBase):
            def __init__(self, file: Any) -> None:
                self._file = file

            def write(self, _: Any) -> int:
                return int(refuse())

            def close(self) -> None:
                self._file.close()
                super().close()

        monkeypatch.setattr(os, "fdopen", fdopen)
    else:
        monkeypatch.setattr(os, call, refuse)
    with pytest.raises(CodegenError, match="the file is unchanged") as error:
        replace_file(path, b"old", b"new")
    assert ("free some space" in str(error.value)) == (code == errno.ENOSPC) and str(path) in str(error.value)
    assert path.read_bytes() == b"old" and only(path)


def test_an_interrupt_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace_file(path, b"old", b"new")
    assert path.read_bytes() == b"old" and only(path)


REPLACE = """
import sys
from pathlib import Path
from codegen25.errors import CodegenError
from codegen25.files import replace_file
path = Path(sys.argv[1])
old = path.read_bytes()
{limit}
try:
    replace_file(path, old, old + b"x" * 1_000_000)
except CodegenError as error:
    print(error)
print(path.read_bytes() == old, [entry.name for entry in path.parent.iterdir()])
"""


def test_a_real_limit_on_file_size(path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    result = subprocess.run([sys.executable, "-c", REPLACE.format(limit=limit), path], capture_output=True, text=True)
    assert result.stdout.splitlines()[1:] == ["True ['file.py']"], result
    assert "the file is unchanged; free some space" in result.stdout


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file system of 64 kB, mounted in a name space of its own."""
    mount = f"mount -t tmpfs -o size=64k none {tmp_path} && echo old > {tmp_path}/file.py"
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    command = [
        unshare,
        "-rm",
        "sh",
        "-c",
        f'{mount} && exec "$@"',
        "sh",
        sys.executable,
        "-c",
        REPLACE.format(limit=""),
    ]
    result = subprocess.run([*command, tmp_path / "file.py"], capture_output=True, text=True)
    assert result.stdout.splitlines()[1:] == ["True ['file.py']"], result
    assert "No space left" in result.stdout and "free some space" in result.stdout

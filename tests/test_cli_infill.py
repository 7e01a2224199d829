"""`codegen25 infill`: what it writes, what it puts into a file, and what it leaves alone."""

from __future__ import annotations

import errno
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commands import (
    SOURCE,
    Run,
    assert_one_line,
    file,
    loaded,
    model,
    parse_once,
    run,
)

import codegen25
from codegen25 import complete, tokenizer
from codegen25.complete import ANCHOR_LINES
from codegen25.engine.decode import decode

__all__ = ["file", "model", "parse_once", "run"]


def test_one_hole_writes_the_span_only(run: Run, model: str, file: Path) -> None:
    at = SOURCE.index("sum")
    expected = loaded(model).infill(SOURCE[:at], SOURCE[at:], max_tokens=6).text
    assert expected
    assert run("infill", file, "--at", "3:12", "--model", model, "--max-tokens", 6) == (0, expected, "")
    assert file.read_bytes() == SOURCE.encode()


@pytest.mark.parametrize(
    ("flags", "anchor"),
    [([], ANCHOR_LINES), (["--anchor", "0"], 0), (["--plain"], 0), (["--anchor", "all"], None), (["--anchor", 2], 2)],
)
def test_anchor(
    run: Run, model: str, file: Path, monkeypatch: pytest.MonkeyPatch, flags: list[object], anchor: int | None
) -> None:
    real, seen = codegen25.Model.infill_holes, []

    def spy(self: codegen25.Model, parts: Any, **arguments: Any) -> Any:
        seen.append(arguments["anchor"])
        return real(self, parts, **arguments)

    monkeypatch.setattr(codegen25.Model, "infill_holes", spy)
    assert run("infill", file, "--at", 3, "--model", model, "--max-tokens", 2, *flags)[0] == 0
    assert seen == [anchor]


def test_anchor_and_plain_contradict(run: Run, file: Path) -> None:
    code, _, err = run("infill", file, "--at", 1, "--plain", "--anchor", 3)
    assert_one_line(code, err, 2, "--plain.*--anchor")


def cut(source: str, *offsets: int) -> list[str]:
    edges = [0, *offsets, len(source)]
    return [source[a:b] for a, b in pairwise(edges)]


def test_several_holes_in_the_order_of_the_file(run: Run, model: str, file: Path) -> None:
    offsets = [SOURCE.index("):\n"), SOURCE.index("return") + 6]
    spans = loaded(model).infill_holes(cut(SOURCE, *offsets), max_tokens=5)
    flags = ["--at", "3:11", "--at", "1:12", "--model", model, "--max-tokens", 5]
    first, second = (c.text if c.text.endswith("\n") or not c.text else c.text + "\n" for c in spans)
    assert run("infill", file, *flags) == (0, f"hole 1, 1:12\n{first}hole 2, 3:11\n{second}", "")
    answer = json.loads(run("infill", file, *flags, "--json")[1])
    assert answer["file"] == str(file) and answer["applied"] is False
    assert [(h["line"], h["column"], h["text"], h["finish_reason"], h["tokens"]) for h in answer["holes"]] == [
        (line, column, c.text, c.finish_reason, list(c.tokens))
        for (line, column), c in zip([(1, 12), (3, 11)], spans, strict=True)
    ]


@pytest.mark.parametrize(("bom", "ending"), [(b"", "\n"), (b"", "\r\n"), (b"\xef\xbb\xbf", "\r\n")])
def test_apply(run: Run, model: str, file: Path, bom: bytes, ending: str) -> None:
    before = bom + SOURCE.replace("\n", ending).encode()
    file.write_bytes(before)
    file.chmod(0o751)
    offsets = [SOURCE.index(":\n"), SOURCE.index("\n\nprint")]
    spans = loaded(model).infill_holes(cut(SOURCE, *offsets), max_tokens=20)
    code, out, err = run("infill", file, "--at", "1:13", "--at", 4, "--apply", "--model", model, "--max-tokens", 20)
    assert code == 0, err
    parts = cut(SOURCE, *offsets)
    new = parts[0] + spans[0].text + parts[1] + spans[1].text + parts[2]
    assert file.read_bytes() == bom + new.replace("\n", ending).encode() != before
    assert file.stat().st_mode & 0o777 == 0o751 and [path.name for path in file.parent.iterdir()] == [file.name]
    for place, span in zip(["1:13", "4:1"], spans, strict=True):
        assert span.text in out
        note = ", which has no end yet (length)" if span.finish_reason == "length" else ""
        assert f"{file}:{place}: {len(span.text)} characters inserted{note}\n" in err


def test_apply_nothing_leaves_the_very_file(run: Run, model: str, file: Path) -> None:
    before = file.stat()
    code, out, err = run("infill", file, "--at", 1, "--apply", "--json", "--max-tokens", 0, "--model", model)
    assert code == 0 and json.loads(out)["applied"] is True and "0 characters inserted" in err
    assert file.stat().st_ino == before.st_ino


@pytest.mark.parametrize("as_json", [False, True])
def test_full_disk_at_apply(run: Run, model: str, file: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    expected = run("infill", file, "--at", "3:12", "--model", model, "--max-tokens", 6)[1]
    monkeypatch.setattr(os, "fsync", full)
    flags = ["--apply", "--model", model, "--max-tokens", 6] + ["--json"] * as_json
    code, out, err = run("infill", file, "--at", "3:12", *flags)
    assert_one_line(code, err, 1, "mean.py: .*No space left.*unchanged; free some space")
    assert file.read_bytes() == SOURCE.encode() and [path.name for path in file.parent.iterdir()] == [file.name]
    if as_json:
        assert json.loads(out)["applied"] is False and json.loads(out)["holes"][0]["text"] == expected
    else:
        assert out == expected


@pytest.mark.parametrize(
    ("at", "pattern"),
    [("8:1", "mean.py: line 8 .*1 to 7"), ("1:15", "mean.py: column 15 .*1 to 14"), ("999999999", "line")],
)
def test_cursor_outside_the_file(run: Run, file: Path, at: str, pattern: str) -> None:
    code, _, err = run("infill", file, "--at", at)
    assert_one_line(code, err, 1, pattern)


def test_control_strings_in_a_file_stay_text(run: Run, model: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They open no hole, close none, and come back out of the file as they were."""
    real: Any = decode
    prompts: list[list[int]] = []

    def spy(backend: Any, tokens: Any, requests: Any) -> Any:
        prompts.extend(list(request.prompt) for request in requests)
        return real(backend, tokens, requests)

    monkeypatch.setattr(complete, "decode", spy)
    text = "a = '<mask_1>'\nb = '<eom><sep>'\n\nc = '<|endoftext|>'\n"
    file.write_text(text)
    code, _, err = run("infill", file, "--at", 3, "--apply", "--max-tokens", 3, "--model", model)
    assert code == 0, err
    assert file.read_text().startswith(text[:31]) and file.read_text().endswith(text[32:])
    family = tokenizer.family()
    control = [id for id in prompts[0] if family.is_control(id)]
    assert control == [family.masks[0], family.eot, family.sep, family.masks[0]]
    prompts.clear()
    assert run("complete", "--file", file, "--max-tokens", 3, "--model", model)[0] == 0
    assert not [id for id in prompts[0] if family.is_control(id)]

"""The page of runs: what it shows, and that hostile and half-written runs do no harm."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25 import cli
from codegen25.errors import CodegenError
from codegen25.train.curves import POINTS, figure, smoothed, thinned, ticks
from codegen25.train.runs import flat, read_run

numbers = st.floats(-1e12, 1e12, allow_nan=False)


def write_run(folder: Path, *, steps: int = 60, rate: float = 1e-3, **settings: Any) -> Path:
    folder.mkdir(parents=True)
    said = {"train": {"steps": 100, "rate": rate}, "stage": "multi", **settings}
    record = {"settings": said, "starts": [{"time": "2026-11-25T15:00:00Z", "step": 0, "git": {"commit": "abc"}}]}
    (folder / "run.json").write_text(json.dumps(record))
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        if step % 20 == 0:
            measured = {"bits_per_byte": {"python": 1 / step, "rust": 2 / step}, "samples": ["a < b\n\tc", "<script>"]}
            lines.append({"step": step, "tokens": step * 100, "evaluation": measured})
        line = {"step": step, "tokens": step * 100, "loss": 3 - step / 50, "rate": rate, "tokens_per_second": 500.0}
        lines.append(line | {"norm": 1.0, "mfu": 0.5})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


class Page(HTMLParser):
    """What a page holds: its tags, in and out, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name in ("src", "href") or name.startswith("on")]
        if tag not in ("meta", "line", "polyline", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def report(out: Path, *runs: Path) -> Page:
    assert cli.main(["report", *map(str, runs), "--out", str(out)]) == 0
    return Page(out.read_text(encoding="utf-8"))


def test_in_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "adamw")
    assert cli.main(["report", str(run), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert (found["run"], found["step"], found["tokens"]) == ("adamw", 60, 6000)
    assert found["measured"]["bits_per_byte.python"] == pytest.approx(1 / 60)
    assert [one["times"] for one in found["forecast"]["more"]] == [2, 4, 10]
    assert "What more tokens would bring" in report(tmp_path / "report.html", run).words
    assert cli.main(["report", str(run)]) == 2
    assert "--out" in capsys.readouterr().err


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    one = write_run(tmp_path / "adamw", optimizer="adamw")
    other = write_run(tmp_path / "muon", rate=2e-3, optimizer="muon")
    page = report(tmp_path / "report.html", one, other)
    assert "script" not in page.tags
    for words in ("Loss, nats a token", "Learning rate", "Tokens a second", "bits per byte", "60 of 100", "6.00 k",
                  "muon python", "Samples", "a < b", "<script>"):  # fmt: skip
        assert words in page.words, words
    differing = page.words.split("Settings that differ")[1].split("common to all")[0]
    assert "optimizer" in differing and "train.rate" in differing and "train.steps" not in differing
    # The loss has two curves and, faint, what they are the mean of.
    assert page.tags.count("polyline") == 2 * (2 + 1 + 2 + 2 + 2) + 4


def test_the_same_name_twice_is_numbered(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / parent / "multi") for parent in "ab"]
    assert "multi (2)" in report(tmp_path / "r.html", *runs).words


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=0)
    assert "0 of 100" in report(tmp_path / "r.html", run).words
    (run / "log.jsonl").unlink()
    assert "0 of 100" in report(tmp_path / "r.html", run).words


def test_a_run_at_any_byte_of_its_log(tmp_path: Path) -> None:
    """In progress, or cut off: what is whole is shown."""
    run = write_run(tmp_path / "run", steps=21)
    log = run / "log.jsonl"
    whole = log.read_bytes()
    for end in range(0, len(whole), 37):
        log.write_bytes(whole[:end])
        found = read_run(run)
        assert len(found.steps) + len(found.evaluations) == whole[:end].count(b"\n")
    log.write_bytes(whole[:-9] + b"\xff")
    assert "20 of 100" in report(tmp_path / "r.html", run).words


def test_skipped_steps_are_counted_and_not_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=3)
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 4, "tokens": 400, "loss": None, "skipped": "the loss is nan"}) + "\n")
        log.write('{"step": 5, "tokens": 500, "loss": Infinity, "norm": NaN}\n')
    page = report(tmp_path / "r.html", run)
    assert "steps skipped" in page.words and "5 of 100" in page.words


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("run.json", None, "has no run.json"),
        ("run.json", "{", "cannot be read"),
        ("run.json", '{"settings": 3, "starts": []}', "cannot be read"),
        ("log.jsonl", '{"step": 1}\nnonsense\n{"step": 2}\n', ":2: not a line"),
        ("log.jsonl", "[1]\n", ":1: not a line"),
    ],
)
def test_what_is_no_run_is_one_line(
    file: str, content: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run")
    (run / file).unlink()
    if content is not None:
        (run / file).write_text(content)
    assert cli.main(["report", str(run), "--out", str(tmp_path / "r.html")]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "r.html").exists()
    with pytest.raises(CodegenError):
        read_run(tmp_path)


def test_names_that_are_markup_stay_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "<b>&run", note="</code><script>alert(1)</script>")
    page = report(tmp_path / "r.html", run)
    assert "script" not in page.tags and "<b>&run" in page.words and "alert(1)" in page.words


@given(st.lists(st.tuples(numbers, numbers), max_size=50), st.booleans(), st.booleans())
def test_a_figure_is_well_formed_and_inside_its_frame(
    points: list[tuple[float, float]], zero: bool, smooth: bool
) -> None:
    drawn = figure({"<x>": points, "empty": [], "none": [(1.0, math.nan)]}, zero=zero, smooth=smooth)
    assert bool(drawn) == bool(points)
    if points:
        svg = ElementTree.fromstring(drawn.split("</svg>")[0] + "</svg>")
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        for line in svg.iter("polyline"):
            for place in line.attrib["points"].split():
                x, y = map(float, place.split(","))
                assert -1 <= x <= width + 1 and -1 <= y <= height + 1


@given(numbers, numbers)
def test_ticks_are_few_and_inside(a: float, b: float) -> None:
    low, high = sorted((a, b))
    found = ticks(low, high)
    slack = 1e-6 * (abs(low) + abs(high))
    assert len(found) <= 12 and all(low - slack <= tick <= high + slack for tick in found)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(-9, 9)), min_size=1, max_size=2000))
def test_thinning_keeps_the_mean_and_smoothing_the_bounds(points: list[tuple[int, int]]) -> None:
    few = thinned(points)
    assert len(few) <= POINTS
    size = -(-len(points) // POINTS)
    if len(points) % size == 0:
        assert sum(y for _, y in few) / len(few) == pytest.approx(sum(y for _, y in points) / len(points))
    low, high = min(y for _, y in points), max(y for _, y in points)
    assert all(low - 1e-9 <= y <= high + 1e-9 for _, y in smoothed(points))
    assert smoothed([(1.0, 5.0)])[0][1] == pytest.approx(5.0)


def test_flat_names() -> None:
    assert dict(flat({"a": {"b": [1, {"c": 2}]}, "d": "e"})) == {"a.b.1": 1, "a.b.2.c": 2, "d": "e"}
    assert list(flat({})) == []

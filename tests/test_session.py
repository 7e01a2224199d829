"""Recorded sessions: a generated one ends with the files it was made from; a file is read back, or named."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.bench import session
from codegen25.bench.session import Event, generate, library_files, load, replay, save
from codegen25.errors import CodegenError, UsageError

CODE_LINES = st.one_of(
    st.just(""), st.just("    return value + 1"), st.just("\tindented by a tab"), st.text("abc() é🙂\t", max_size=110)
)
CODE = st.lists(CODE_LINES, min_size=1, max_size=30).map("\n".join)


def finals(events: list[Event]) -> list[str]:
    """The text of each file when the next is opened, and at the end."""
    texts: list[str] = []
    for moment in replay(events):
        if moment.event.action == "open":
            texts.append("")
        texts[-1] = moment.prefix + moment.suffix
    return texts


@given(CODE, CODE, st.integers(0, 1000), st.integers(1, 8))
def test_the_files_are_made_whole_again(
    tmp_path_factory: pytest.TempPathFactory, first: str, second: str, seed: int, places: int
) -> None:
    texts = [text + "\nif x:\n    a_line_to_type = 1\n" for text in (first, second)]
    files = [tmp_path_factory.getbasetemp() / name for name in ("first.py", "second.py")]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text, encoding="utf-8")
    events = generate(files, seed, places)
    assert finals(events) == texts
    assert events == generate(files, seed, places)
    assert [event.t_ms for event in events] == sorted(event.t_ms for event in events)


def test_a_session_of_the_standard_library_has_everything_an_author_does() -> None:
    files = library_files(3, seed=1)
    assert files == library_files(3, seed=1) != library_files(3, seed=2)
    events = [event for seed in range(4) for event in generate(files, seed, places=8)]
    assert {event.action for event in events} == {"open", "move", "type", "delete", "accept"}
    assert all(event.ask == (event.action in ("type", "delete", "accept")) for event in events)
    keys = [event for event in events if event.action == "type"]
    assert len(keys) > 1000 and sum(len(event.inserted) == 1 for event in keys) > 0.8 * len(keys)
    made = generate(files, 0, places=8)
    pauses = sorted(
        after.t_ms - before.t_ms for before, after in pairwise(made) if before.action == after.action == "type"
    )
    assert 150 < pauses[len(pauses) // 2] < 250
    assert pauses[-1] > 800  # somebody was thinking


def test_the_seed_decides() -> None:
    files = library_files(1, seed=0)
    assert generate(files, 1) != generate(files, 2)


def test_saved_and_loaded(tmp_path: Path) -> None:
    events = generate(library_files(1, seed=3), seed=3)
    save(events, tmp_path / "session.jsonl")
    assert load(tmp_path / "session.jsonl") == events
    assert [file.name for file in tmp_path.iterdir()] == ["session.jsonl"]


def test_replay_puts_the_cursor_behind_what_was_inserted() -> None:
    events = [
        Event(0, "open", 3, inserted="one two"),
        Event(5, "type", 3, inserted="s"),
        Event(5, "move", 8),
        Event(9, "delete", 5, deleted=3),
        Event(9, "open", 0, inserted=""),
    ]
    around = [(moment.prefix, moment.suffix) for moment in replay(events)]
    assert around == [("one", " two"), ("ones", " two"), ("ones two", ""), ("ones ", ""), ("", "")]


@pytest.mark.parametrize(
    "bad",
    [
        [Event(0, "type", 0, inserted="x")],
        [Event(0, "open", 4, inserted="abc")],
        [Event(0, "open", 0, inserted="abc"), Event(1, "delete", 1, deleted=3)],
        [Event(0, "open", 0, inserted="abc"), Event(1, "move", -1)],
        [Event(0, "open", 0, inserted="abc"), Event(1, "delete", 3, deleted=-1)],
        [Event(7, "open", 0, inserted="abc"), Event(6, "move", 1)],
    ],
)
def test_events_that_do_not_fit(bad: list[Event], tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match=f"event {len(bad)} of the session"):
        list(replay(bad))
    save(bad, tmp_path / "bad.jsonl")
    with pytest.raises(CodegenError, match=f"event {len(bad)} of the session"):
        load(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        '"open"',
        '{"t_ms": 0}',
        '{"t_ms": 0, "action": "fly", "at": 0}',
        '{"t_ms": 0.5, "action": "open", "at": 0}',
        '{"t_ms": true, "action": "open", "at": 0}',
        '{"t_ms": 0, "action": "open", "at": 0, "more": 1}',
        '{"t_ms": 0, "action": ["open"], "at": 0}',
        "[" * 100_000,
    ],
)
def test_lines_that_are_no_events(line: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text(json.dumps({"t_ms": 0, "action": "open", "at": 0, "inserted": "x"}) + "\n" + line + "\n")
    with pytest.raises(CodegenError, match=r"odd\.jsonl:2: not an event") as caught:
        load(file)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_sessions(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="cannot be read"):
        load(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(CodegenError, match="not UTF-8"):
        load(tmp_path / "binary")
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(CodegenError, match="empty"):
        load(tmp_path / "empty")
    (tmp_path / "flat.py").write_text("x = 1\n")
    with pytest.raises(CodegenError, match="no session can be made"):
        generate([tmp_path / "flat.py"], seed=0)


def test_as_many_files_as_there_are() -> None:
    for count in (0, 100_000):
        with pytest.raises(UsageError, match="files asked for"):
            library_files(count, seed=0)
    assert session.SMALLEST <= library_files(1, seed=0)[0].stat().st_size <= session.LARGEST

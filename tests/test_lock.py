"""A lock says what a corpus is built from, once and in one order, or one line says why it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.data.lock import ordered, read_lock, write_lock
from codegen25.data.source import Source
from codegen25.errors import CodegenError

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
SOURCES = st.builds(
    Source,
    kind=st.sampled_from(["folder", "wheel", "npm", "git"]),
    name=NAMES,
    version=NAMES,
    location=NAMES,
    hash=st.sampled_from(["", "sha256:" + "a" * 64, "git:" + "b" * 40]),
    date=st.sampled_from(["", "2024-01-02"]),
    license=st.sampled_from(["", "MIT"]),
    heldout=st.booleans(),
)
GOOD = {"kind": "wheel", "name": "a", "version": "1", "location": "a.whl", "hash": "sha256:" + "0" * 64}


@given(st.lists(SOURCES, max_size=6, unique_by=lambda s: (s.name, s.version, s.kind, s.location)), st.randoms())
def test_what_is_written_is_read_in_one_order(
    tmp_path_factory: pytest.TempPathFactory, sources: list[Source], draw: Any
) -> None:
    path = tmp_path_factory.mktemp("lock") / "lock.json"
    write_lock(path, sources)
    before = path.read_bytes()
    assert read_lock(path) == ordered(sources)
    draw.shuffle(sources)
    write_lock(path, [*sources, *sources])
    assert path.read_bytes() == before


def lock(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({"lock": 1, "sources": [GOOD | changes]}))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "source 1: unknown field .?colour"),
        ({"hash": "md5:00"}, "source 1: its hash is not"),
        ({"kind": "floppy"}, "source 1: kind .?floppy.? is not known"),
        ({"kind": ["wheel"]}, "source 1: kind is no text"),
        ({"heldout": "yes"}, "source 1: heldout is neither"),
        ({"version": 1}, "source 1: version is no text"),
    ],
)
def test_a_wrong_entry_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match=said):
        read_lock(lock(tmp_path / "lock.json", **changes))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"lock": 2, "sources": []}', '{"lock": 1, "sources": 3}', '{"lock": 1, "sources": [4]}', "\xff"],
)
def test_what_is_no_lock_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CodegenError, match=r"^[^\n]*lock[^\n]*$"):
        read_lock(path)
    with pytest.raises(CodegenError, match="cannot be read"):
        read_lock(tmp_path / "none")


def test_a_field_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_text(json.dumps({"lock": 1, "sources": [{"name": "a"}]}))
    with pytest.raises(CodegenError, match="source 1: no hash"):
        read_lock(path)


def test_two_claims_on_one_place_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_text(json.dumps({"lock": 1, "sources": [GOOD, GOOD | {"heldout": True}]}))
    with pytest.raises(CodegenError, match="a 1: listed twice and differently"):
        read_lock(path)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("[" * 100_000, "not a lock"),
        ('{"lock": 1, "sources": [], "extra": 1}', "not a lock"),
        ('{"lock": true, "sources": []}', "a lock of version true, not 1"),
        (json.dumps({"lock": 1, "sources": [GOOD, GOOD | {"name": "\ud800"}]}), "source 2: name is no text"),
        (
            json.dumps({"lock": 1, "sources": [GOOD | {"hash": "sha256:" + "0" * 64 + "\n"}]}),
            "source 1: its hash is not",
        ),
        (json.dumps({"lock": 1, "sources": [GOOD | {"hash": "sha256:" + "A" * 64}]}), "source 1: its hash is not"),
    ],
)
def test_what_is_wrong_names_the_file(said: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_text(said)
    with pytest.raises(CodegenError) as caught:
        read_lock(path)
    assert str(caught.value).startswith(f"{path}: {words}") and "\n" not in str(caught.value)


def test_one_more_source_is_one_more_line(tmp_path: Path) -> None:
    one, two, other = (Source("wheel", name, "1", f"{name}.whl", "", heldout=name == "b") for name in "acb")
    write_lock(tmp_path / "lock.json", [one, two])
    write_lock(tmp_path / "more.json", [one, two, other])
    before, after = ((tmp_path / name).read_text().splitlines() for name in ("lock.json", "more.json"))
    assert [line for line in after if line in before] == before and len(after) == len(before) + 1
    assert sum("heldout" in line for line in after) == 1 and not any("license" in line for line in after)


def test_a_name_that_is_not_utf8_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_text("before")
    with pytest.raises(CodegenError, match="location is no text"):
        write_lock(path, [Source("folder", "a", "", "/code/\udcff", "")])
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "recipe", sorted((Path(__file__).parent.parent / "recipes").glob("*.lock.json")), ids=lambda p: p.name
)
def test_our_recipes_are_in_their_own_form(recipe: Path, tmp_path: Path) -> None:
    found = read_lock(recipe)
    write_lock(tmp_path / "again.json", found)
    assert (tmp_path / "again.json").read_bytes() == recipe.read_bytes()
    assert all((source.version and source.hash) or source.kind == "installed" for source in found)
    assert any(source.heldout for source in found)

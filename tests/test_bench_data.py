"""The corpus benchmark: its brute force against sets, its plants against decontamination, and its figures."""

from __future__ import annotations

import ast
import json
import random
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sources import program

from codegen25.bench import brute, data, near
from codegen25.bench.figures import Options
from codegen25.bench.peer import PEERS, Recipe
from codegen25.bench.plants import edited, forms, planted, renamed
from codegen25.cli import main
from codegen25.data.decontaminate import Benchmarks, humaneval
from codegen25.data.dedup import NGRAM, THRESHOLD
from codegen25.data.shingles import ngrams
from codegen25.errors import CodegenError

PROBLEMS = humaneval()
WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=12)


def silent(line: str) -> None:
    pass


def options(cache: Path, *peers: str) -> Options:
    return Options(cache=cache, threads=2, rounds=1, peers=peers, say=silent)


def copies(count: int) -> data.Files:
    """Programs, each third of which has a near copy behind it."""
    files = []
    for number in range(count):
        files.append((f"own/m{number}.py", program(number)))
        if number % 3 == 0:
            files.append((f"own/m{number}_copy.py", program(number).replace("least", "bottom", 1)))
    return files


# ---------------------------------------------------------------------------------------------------------- brute force


@given(st.lists(WORDS, min_size=1, max_size=8), st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_all_pairs_are_those_of_sets(texts: list[list[str]], threshold: float) -> None:
    grams = [{tuple(words[at : at + 2]) for at in range(max(len(words) - 1, min(len(words), 1)))} for words in texts]
    expected = {
        (a, b): len(grams[a] & grams[b]) / len(grams[a] | grams[b])
        for a, b in combinations(range(len(texts)), 2)
        if grams[a] and len(grams[a] & grams[b]) >= threshold * len(grams[a] | grams[b])
    }
    assert brute.true_pairs([ngrams(" ".join(words), 2) for words in texts], threshold) == expected


def test_recall_and_precision() -> None:
    pairs = {(0, 1): 0.9, (1, 2): 0.8, (4, 5): 0.7}
    assert brute.recall(pairs, [0, 2, 3, 4]) == 1
    assert brute.recall(pairs, [0, 1, 3, 4]) == pytest.approx(2 / 3), "both of (0, 1) are left"
    assert brute.precision(pairs, [0, 2, 3, 4], [1, 5]) == 1
    assert brute.precision(pairs, [0, 1, 5], [2, 3, 4]) == pytest.approx(2 / 3), "3 is like nothing"
    assert brute.precision(pairs, [0, 3, 4, 5], [1, 2]) == 0.5, "2 is like 1, which is dropped too"
    assert brute.recall({}, [0]) == brute.precision({}, [0], []) == 1


# --------------------------------------------------------------------------------------------------------------- plants


def test_every_plant_is_found_and_could_have_been_kept() -> None:
    benchmarks = Benchmarks(PROBLEMS)
    plants = planted(PROBLEMS, [program(1), program(2)], seed=3)
    assert plants == planted(PROBLEMS, [program(1), program(2)], seed=3)
    assert {name.split("_")[2] for name in plants} == {"whole.py", "indented.py", "commented.py", "renamed.py"}
    assert len(plants) > 3 * len(PROBLEMS)
    for name, text in plants.items():
        ast.parse(text)
        assert benchmarks.found(text, "python"), name
    assert benchmarks.found(program(1), "python") is None


def test_a_renamed_solution_is_still_one() -> None:
    """It passes the problem's own test, under other names."""
    count = 0
    for problem in PROBLEMS:
        for text in (text for form, text in forms(problem) if form == "renamed"):
            assert f"def {problem.entry_point}" not in text
            scope: dict[str, Any] = {}
            exec("from typing import *\nimport math, collections\n" + text, scope)
            exec(problem.test, scope)
            name = next(node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
            try:
                scope["check"](scope[name])
            except NameError:  # a helper of the prompt's, which was not planted with it
                continue
            count += 1
    assert count > 40


def test_methods_keep_their_names() -> None:
    text = renamed("def f(f, a):\n    b = a.a + g(a)\n    return b.f\n")
    assert ast.unparse(ast.parse(text)) == (
        "def other_0(other_0, other_1):\n    other_2 = other_1.a + g(other_1)\n    return other_2.f"
    )


def test_edited_copies_have_every_similarity() -> None:
    rng = random.Random(5)
    similar = []
    for number in range(60):
        text = program(number, functions=20)
        copy = edited(text, rng.random() * data.MOST_EDITED, rng)
        ast.parse(copy)
        pairs = brute.true_pairs([ngrams(text, NGRAM), ngrams(copy, NGRAM)], 0.0)
        similar.append(pairs[0, 1])
    future = "from __future__ import annotations\n"
    assert edited(f"{future}values = other\n", 1.0, rng) == f"{future}values_too = other_too\n"
    assert min(similar) < 0.6 and max(similar) > 0.9
    assert sum(value >= THRESHOLD for value in similar) > 10 and sum(value < THRESHOLD for value in similar) > 10


# ---------------------------------------------------------------------------------------------------------------- files


def test_files_are_distinct_and_pass_the_filters(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"m{number}.py").write_text(program(number % 20))
    (tmp_path / "broken.py").write_text("def broken(:\n" * 30)
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\0")
    files = data.choose(tmp_path, 24, seed=1)
    assert files == data.choose(tmp_path, 24, seed=1) != data.choose(tmp_path, 24, seed=2)
    assert len({name for name, _ in files}) == len({text for _, text in files}) == len(files) == 24
    assert any(name.endswith("_copy.py") for name, _ in files)
    assert all(near.wanted(name, text) for name, text in files)


def test_folders_without_files(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="no Python file passes the filters"):
        data.choose(tmp_path, 5, seed=0)
    with pytest.raises(CodegenError, match="no such folder"):
        data.choose(tmp_path / "missing", 5, seed=0)


# -------------------------------------------------------------------------------------------------------------- figures

# Keeps every second document of a file, and says that it took two seconds.
HALF = """
import json, pathlib

class Engine:
    def load(self):
        return {"version": "0"}
    def run(self, folder, out, workers, buckets, hashes):
        kept = pathlib.Path(out) / "kept"
        kept.mkdir(parents=True)
        for file in pathlib.Path(folder).glob("*.jsonl"):
            (kept / file.name).write_text("".join(file.read_text().splitlines(keepends=True)[::2]))
        return {"seconds": {"all": 2.0}}
"""


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Options]:
    """Options whose cache holds an environment in which this program runs as datatrove."""

    def prepare(engine: str) -> Options:
        (tmp_path / "engine.py").write_text(engine)
        monkeypatch.setitem(PEERS, "datatrove", Recipe(str(tmp_path / "engine.py"), ("toy",), 0))
        folder = tmp_path / "cache" / "peers" / "toy"
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (folder / "bin" / "python").chmod(0o755)
        (folder / "complete").touch()
        return options(tmp_path / "cache", "datatrove")

    return prepare


def test_near_copies_beside_a_peer(prepared: Callable[[str], Options], tmp_path: Path) -> None:
    files = copies(30)
    figures = {figure.name: figure for figure in data.near_figures(files, prepared(HALF), tmp_path)}
    speed = figures["filters and near copies, equal recall"]
    assert list(speed.peer) == [len(files) / 2] and len(speed.ours) == 1 and str(speed.bar) == ">= 2"
    assert speed.more["peer_start_seconds"] == 2 and set(speed.more["ours_seconds"][0]) == {
        "filter and sign", "compare", "drop",
    }  # fmt: skip
    assert figures["recall of near copies"].holds and figures["precision of near copies"].holds
    assert figures["recall of near copies"].note.startswith("10 pairs of 40 files")
    (its_precision,) = figures["precision, its defaults"].peer
    assert its_precision < 1
    kept = {id for file in (tmp_path / "1-" / "kept").glob("*.jsonl") for id, _ in near.read_documents(file)}
    assert kept == {name for name, _ in files if not name.endswith("_copy.py")}, "the first by name is kept"


def test_a_peer_that_fails_is_said(prepared: Callable[[str], Options], tmp_path: Path) -> None:
    broken = HALF.replace("kept.mkdir(parents=True)", "raise OSError('no room')")
    figures = list(data.near_figures(copies(6), prepared(broken), tmp_path))
    assert [figure.holds for figure in figures] == [None, None, True, True]
    assert figures[0].note == "datatrove cannot run: OSError: no room" and figures[0].ours


def test_a_build_keeps_its_promises(tmp_path: Path) -> None:
    found = data.build_figures(copies(24), PROBLEMS[:9], options(tmp_path), tmp_path, seed=0)
    figures = {figure.name: figure for figure in found}
    assert set(figures) == {"whole build", "planted problems kept out", "the same corpus"}
    kept_out = figures["planted problems kept out"]
    assert kept_out.holds and kept_out.more["survivors"] == [] and "'benchmark': " in kept_out.note
    assert figures["the same corpus"].holds
    json.dumps([figure.to_json() for figure in figures.values()], allow_nan=False)


def test_other_bytes_are_seen(tmp_path: Path) -> None:
    for name, text in (("one", "a"), ("other", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same").write_text("same")
        (tmp_path / name / "shard").write_text(text)
    (tmp_path / "one" / "only").touch()
    figure = data._identity(tmp_path / "one", tmp_path / "other")
    assert figure.holds is False and figure.note == "1 of 3 files are the same to the byte"


@pytest.mark.slow
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "files").mkdir()
    for number in range(40):
        (tmp_path / "files" / f"m{number}.py").write_text(program(number))
    command = ["bench", "data", "--files", str(tmp_path / "files"), "--peers", "none", "--threads", "2", "--json"]
    assert main([*command, "--cache", str(tmp_path / "cache")]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert [figure["holds"] for figure in figures if figure["peer"] is not None and figure["bar"]] == [True] * 4

"""The build as a whole: every file accounted for, the same bytes however it is run, whole or not there."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_sources import MIT, program, project

from codegen25.bench.data import file_hashes as files
from codegen25.data.corpus import Corpus
from codegen25.data.decontaminate import humaneval
from codegen25.data.describe import describe
from codegen25.data.engine import Engine
from codegen25.data.pipeline import Build
from codegen25.data.policy import read_policy
from codegen25.data.recipe import Recipe
from codegen25.data.source import Source
from codegen25.data.units import units
from codegen25.errors import CodegenError
from codegen25.model.vocabulary import vocabulary_of
from codegen25.tokenizer import family

PROBLEM = humaneval()[0]
GPL_NOTICE = "# This program is free software under the terms of the GNU General Public License version 3.\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four projects: one plain, one with a bit of everything, one without a licence, one to hold out."""
    root = tmp_path_factory.mktemp("projects")
    near = program(3).replace("least", "bottom", 1)
    mixed = {
        "mixed/own.py": program(20),
        "mixed/copy.py": program(1),  # exactly that of `plain`
        "mixed/nearly.py": near,
        "mixed/foreign.py": GPL_NOTICE + program(21),
        "mixed/contact.py": "# Written by somebody <jane.roe@corporation.org>\n" + program(22),
        "mixed/solution.py": PROBLEM.prompt + PROBLEM.solution,
        "mixed/broken.py": "def broken(:\n    return the value that is broken and cannot be read by anybody\n" * 3,
        "mixed/data.csv": "a,b\n" * 40,
        "web/app.js": "// The page.\n"
        + "".join(f"export function step{n}(x) {{ return x + {n}; }}\n" for n in range(9)),
    }
    return [
        project(root / "plain", {f"plain/m{n}.py": program(n) for n in range(12)}),
        project(root / "mixed", mixed),
        project(root / "silent", {f"silent/m{n}.py": program(40 + n) for n in range(3)}, license=None),
        project(root / "apart", {f"apart/m{n}.py": program(60 + n) for n in range(4)}),
    ]


@pytest.fixture(scope="module")
def sources(folders: list[Path]) -> list[Source]:
    return [source for folder in folders for source in describe(str(folder))]


def recipe(**settings: object) -> Recipe:
    given: dict[str, object] = {"problems": humaneval(), "shard_bytes": 20_000} | settings
    return Recipe(vocabulary_of(), read_policy("permissive"), **given)  # type: ignore[arg-type]


def build(sources: list[Source], out: Path, workers: int = 1, runner: str = "native", **settings: object) -> Corpus:
    return Build(sources, out, recipe(**settings), Engine(runner, workers)).run()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def corpus(sources: list[Source], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build(sources, tmp_path_factory.mktemp("built") / "corpus", heldout=0.0)


def dropped(corpus: Corpus) -> list[dict[str, str]]:
    found: list[dict[str, str]] = pq.read_table(corpus.folder / "dropped.parquet").to_pylist()
    return found


def test_every_file_is_kept_or_dropped_for_a_reason(corpus: Corpus, folders: list[Path]) -> None:
    there = Counter(path.name for folder in folders for path in folder.rglob("*") if path.is_file())
    kept = [document.path for split in ("train", "heldout") for document in corpus.documents(split)]
    gone = [row["path"] for row in dropped(corpus)]
    assert Counter(Path(path).name for path in kept + gone) == there
    assert all(row["reason"] and row["stage"] for row in dropped(corpus))


def test_reasons_are_the_right_ones(corpus: Corpus) -> None:
    stages = {row["path"]: row["stage"] for row in dropped(corpus) if row["path"].startswith("mixed/")}
    assert stages == {
        "mixed/foreign.py": "licence",
        "mixed/solution.py": "benchmark",
        "mixed/broken.py": "filter",
        "mixed/data.csv": "language",
        **{path: stages[path] for path in stages if "copy" in path or "nearly" in path},
    }
    assert {row["stage"] for row in dropped(corpus) if row["path"].startswith("silent/")} == {"licence"}


def test_of_copies_one_is_kept(corpus: Corpus) -> None:
    stages = Counter(row["stage"] for row in dropped(corpus))
    assert (stages["exact copy"], stages["near copy"]) == (1, 1)
    ids = [document.id for document in corpus.documents("train")]
    assert len(ids) == len(set(ids))


def test_what_is_kept_shows_source_licence_and_evidence(corpus: Corpus) -> None:
    documents = list(corpus.documents("train"))
    assert {document.license for document in documents} == {"MIT"}
    assert all(document.evidence.file == "LICENSE" and document.evidence.confidence > 0.9 for document in documents)
    contact = next(document for document in documents if document.path.endswith("contact.py"))
    assert "<EMAIL>" in contact.content and "jane.roe" not in contact.content
    assert [(one.kind, one.line) for one in contact.redactions] == [("email", 1)]
    assert {document.language for document in documents} == {"python", "javascript"}


def test_shards_hold_the_tokens_of_their_documents(corpus: Corpus) -> None:
    tokenizer = family()
    for shard in corpus.shards("train"):
        for number in range(len(shard.ends)):
            document = shard.document(number)
            assert shard.document_ids(number).tolist() == [*tokenizer.encode(document.content), 50256]
    assert len(corpus.shards("train")) > 1
    corpus.verify()


def test_two_workers_write_the_same_bytes(sources: list[Source], corpus: Corpus, tmp_path: Path) -> None:
    assert files(build(sources, tmp_path / "two", workers=2).folder) == files(corpus.folder)


def test_ray_writes_the_same_bytes(folders: list[Path], corpus: Corpus, tmp_path: Path) -> None:
    """In a process of its own, as a runner is chosen once, with a cluster of two workers."""
    out = tmp_path / "ray"
    code = f"""
import ray; ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
from pathlib import Path
from test_pipeline import build, describe
sources = [source for folder in {[str(folder) for folder in folders]} for source in describe(folder)]
build(sources, Path({str(out)!r}), workers=2, runner="ray")
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment(), timeout=300)
    assert files(out) == files(corpus.folder)


def test_held_out_by_source(sources: list[Source], tmp_path: Path) -> None:
    apart = [Source(**vars(source) | {"heldout": source.name == "apart"}) for source in sources]
    corpus = build(apart, tmp_path / "corpus")
    assert {document.source for document in corpus.documents("heldout")} == {"apart"}
    assert "apart" not in {document.source for document in corpus.documents("train")}


def test_opted_out_sources_are_not_read(sources: list[Source], tmp_path: Path) -> None:
    corpus = build(sources, tmp_path / "corpus", opt_out=frozenset(["plain"]))
    assert "plain" not in {document.source for document in corpus.documents("train")}
    assert [row["reason"] for row in dropped(corpus) if row["source"] == "plain"] == ["source opted out"]


def test_the_share_of_a_source_is_bounded(sources: list[Source], tmp_path: Path) -> None:
    corpus = build(sources, tmp_path / "corpus", package_bytes=6_000)
    sizes: Counter[str] = Counter()
    for document in corpus.documents("train"):
        sizes[document.source] += len(document.content.encode())
    assert 0 < sizes["plain"] <= 6_000
    assert any(row["reason"] == "over the source's share" for row in dropped(corpus))


def test_what_was_hashed_for_the_build_is_not_hashed_again(folders: list[Path]) -> None:
    (source,) = [replace(one, hash="sha256:another") for one in describe(str(folders[0]))]
    assert len(units([source], Path(), {(source.location, source.hash)})) == 1
    with pytest.raises(CodegenError, match="is not what was locked"):
        units([source], Path(), {(source.location, "sha256:yet another")})


def test_built_again_is_nothing_to_do(sources: list[Source], corpus: Corpus) -> None:
    before = files(corpus.folder)
    assert build(sources, corpus.folder).fingerprint == corpus.fingerprint
    assert files(corpus.folder) == before


def test_another_corpus_is_not_overwritten(sources: list[Source], corpus: Corpus) -> None:
    with pytest.raises(CodegenError, match="holds another corpus"):
        build(sources[:1], corpus.folder)


def test_nothing_to_keep_says_why(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match=r"nothing is left to keep; no licence"):
        build(describe(str(folders[2])), tmp_path / "corpus")
    pq.write_table(pa.table({"other": ["columns"]}), tmp_path / "foreign.parquet")
    with pytest.raises(CodegenError, match=r"nothing is left to keep; .*foreign.parquet: .*other"):
        build(describe(str(tmp_path / "foreign.parquet")), tmp_path / "foreign")
    assert not (tmp_path / "corpus" / "corpus.json").exists()


@pytest.fixture
def command(folders: list[Path], tmp_path: Path) -> list[str]:
    """The build of the fixture `corpus` as a command that can be killed."""
    code = """
import sys
from test_pipeline import *
build([source for folder in sys.argv[2:] for source in describe(folder)], Path(sys.argv[1]), workers=2)
"""
    return [sys.executable, "-c", code, str(tmp_path / "killed"), *map(str, folders)]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(command: list[str], corpus: Corpus, tmp_path: Path) -> None:
    """Kills come at moments of the work itself: when the number of files in the folder reaches a mark."""
    out = tmp_path / "killed"
    for mark in (3, 8, 14, 19):
        process = subprocess.Popen(command, env=_environment(), start_new_session=True)
        while process.poll() is None and sum(1 for _ in out.rglob("*")) < mark:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not (out / "corpus.json").exists():
            with pytest.raises(CodegenError, match="not a finished corpus"):
                Corpus(out)
    subprocess.run(command, check=True, env=_environment(), timeout=120)
    assert files(out) == files(corpus.folder)


def test_a_full_disk_is_one_line_and_the_build_goes_on(command: list[str], corpus: Corpus, tmp_path: Path) -> None:
    """Files may not grow beyond a bound, which a write meets as it meets a full disk: as an OSError."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))

    result = subprocess.run(
        command, env=_environment(), preexec_fn=bounded, capture_output=True, text=True, timeout=120
    )
    assert result.returncode != 0
    assert "CodegenError" in result.stderr.splitlines()[-1]
    subprocess.run(command, check=True, env=_environment(), timeout=120)
    assert files(tmp_path / "killed") == files(corpus.folder)


def test_the_manifest_counts(corpus: Corpus) -> None:
    manifest = json.loads((corpus.folder / "corpus.json").read_text())
    kept = sum(1 for _ in corpus.documents("train"))
    assert manifest["files"] == kept + len(dropped(corpus))
    assert MIT not in json.dumps(manifest)

"""What the benchmark plants is what it says, and its figures come out of a small corpus."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import numpy as np
import pytest
import slow_suffixes
from attributed import function, tracer
from small_corpus import document

from codegen25.attribute.trace import Tracer
from codegen25.bench import attribute, excerpts
from codegen25.bench.peer import DRIVERS, PEERS
from codegen25.data.corpus import Corpus
from codegen25.data.lexemes import Lexemes


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Tracer:
    return tracer(tmp_path_factory.mktemp("traced"), normalized=True)


def test_reformatted_code_means_the_same() -> None:
    for seed in range(20):
        text = function(seed)
        changed = excerpts.reformatted(text)
        assert changed != text
        assert ast.dump(ast.parse(changed)) == ast.dump(ast.parse(text))


def test_renamed_code_has_the_same_shape_and_no_name_of_before() -> None:
    for seed in range(20):
        text = function(seed)
        changed = excerpts.renamed(text)
        ours, theirs = Lexemes(text).all, Lexemes(changed).all
        assert len(ours) == len(theirs)
        names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        assert not names & {node.id for node in ast.walk(ast.parse(changed)) if isinstance(node, ast.Name)}
        assert len(names) == len({n.id for n in ast.walk(ast.parse(changed)) if isinstance(n, ast.Name)})


def test_what_is_planted_is_found_and_what_is_fresh_is_not(traced: Tracer) -> None:
    corpus, draw = Corpus(traced.index.corpus), random.Random(0)
    figures = list(attribute._planted(traced, corpus, 12, draw))
    assert [figure.holds for figure in figures] == [True, True, True]
    fresh = [document(function(("fresh", seed), lines=30)) for seed in range(5)]
    assert attribute._false(traced, fresh, 20, draw).ours == [0.0]


def test_a_shard_as_infini_gram_reads_it(tmp_path: Path) -> None:
    ids, ends = np.array([5, 300, 50256, 5, 300, 7, 50256], np.uint16), np.array([3, 7], np.uint64)
    attribute.write_infini_gram(tmp_path, ids, ends)
    stream = np.frombuffer((tmp_path / "tokenized.0").read_bytes(), "<u2")
    assert stream.tolist() == [0xFFFF, 5, 300, 50256, 0xFFFF, 5, 300, 7, 50256]
    assert np.frombuffer((tmp_path / "offset.0").read_bytes(), "<u8").tolist() == [0, 8]
    table = (tmp_path / "table.0").read_bytes()
    assert len(table) == stream.size
    order = slow_suffixes.sorted_suffixes([int(i).to_bytes(2, "little") for i in stream], frozenset())  # type: ignore[misc]
    assert [place // 2 for place in table] == order
    assert (DRIVERS / PEERS["infini-gram"].driver).is_file()


def test_spans_without_their_blanks() -> None:
    flags = np.zeros(1 << 16, np.bool_)
    flags[220] = True
    query = np.array([220, 220, *range(1, 30), 220], np.uint16)
    spans = [[0, 13], [1, 15], [4, 20], [30, 32]]
    assert attribute._stripped(spans, query, flags) == [(2, 15), (4, 20)]

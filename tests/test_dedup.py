"""Near copies: bands against MinHash's theory and datasketch's, clusters and greedy choice against brute force."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given
from hypothesis import strategies as st

from codegen25.data.dedup import (
    BANDS,
    NGRAM,
    ROWS,
    THRESHOLD,
    Copy,
    ShingleReader,
    ShingleWriter,
    bands,
    clusters,
    jaccard,
    near_copies,
)
from codegen25.data.shingles import Hashes, ngrams
from codegen25.errors import CodegenError

NUMBERS = st.sets(st.integers(0, 40))
GROUPS = st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=20)


def array(values: Iterable[int]) -> Hashes:
    return np.array(sorted(values), dtype=np.uint64)


def grouped(banded: Hashes) -> list[list[int]]:
    """Documents by equal bands, as the engine groups them."""
    found: dict[int, list[int]] = {}
    for number, row in enumerate(banded.tolist()):
        for value in row:
            found.setdefault(value, []).append(number)
    return [members for members in found.values() if len(members) > 1]


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def synthetic(rng: random.Random) -> list[str]:
    """About 450 texts: families whose members differ from their first by up to a third of its words."""
    texts = []
    for family in range(70):
        words = [f"w{family}_{rng.randrange(5000)}" for _ in range(rng.choice([12, 60, 300, 900]))]
        texts.append(" ".join(words))
        for _ in range(rng.randrange(12)):
            at, count = rng.randrange(len(words)), rng.randrange(1 + len(words) // 3)
            texts.append(
                " ".join(words[:at] + [f"n{rng.randrange(10**9)}" for _ in range(count)] + words[at + count :])
            )
    return sorted(set(texts))


# ---------------------------------------------------------------------------------------------------------------- bands


def test_recall_and_precision_on_texts_of_every_similarity() -> None:
    texts = synthetic(random.Random(7))
    found = [ngrams(text, NGRAM) for text in texts]
    sets = [set(grams.tolist()) for grams in found]
    near = {pair for pair in combinations(range(len(texts)), 2) if _jaccard(sets[pair[0]], sets[pair[1]]) >= THRESHOLD}
    assert len(near) > 100
    groups = grouped(bands(found))
    candidates = {pair for group in groups for pair in combinations(sorted(set(group)), 2)}
    assert len(near & candidates) / len(near) >= 0.98
    assert len(candidates) < 20 * len(near), "nearly everything is a candidate"
    dropped = near_copies(groups, lambda document: document, lambda document: found[document])
    for document, copy in dropped.items():
        assert copy.kept not in dropped
        assert copy.similarity == _jaccard(sets[document], sets[copy.kept]) >= THRESHOLD
    left = [pair for pair in near if pair[0] not in dropped and pair[1] not in dropped]
    assert len(left) <= 0.02 * len(near)


@pytest.mark.parametrize("shared", [60, 70, 80])
def test_candidates_are_as_many_as_theory_says(shared: int) -> None:
    """Among pairs of a known similarity, and as many as datasketch's own bands find."""
    rng, pairs = random.Random(shared), 300
    ours = theirs = 0
    for number in range(pairs):
        tokens = [rng.getrandbits(64) for _ in range(100)]
        half = (100 - shared) // 2
        a, b = set(tokens[: 100 - half]), set(tokens[half:])
        assert _jaccard(a, b) == shared / 100
        rows = bands([array(a), array(b)])
        ours += bool((rows[0] == rows[1]).any())
        if number < 60:
            index = MinHashLSH(params=(BANDS, ROWS), num_perm=BANDS * ROWS)
            minhashes = [MinHash(BANDS * ROWS, seed=number, hashfunc=int) for _ in range(2)]
            for minhash, tokens_of in zip(minhashes, (a, b), strict=True):
                minhash.update_batch([token & 0xFFFFFFFF for token in tokens_of])
            index.insert("a", minhashes[0])
            theirs += bool(index.query(minhashes[1]))
    expected = 1 - (1 - (shared / 100) ** ROWS) ** BANDS
    assert ours / pairs == pytest.approx(expected, abs=0.06)
    assert ours / pairs == pytest.approx(theirs / 60, abs=0.16)


def test_bands_of_a_document_do_not_depend_on_its_company() -> None:
    found = [ngrams(f"def f{number}(): return {number} * {number % 3}", NGRAM) for number in range(20)]
    together = bands(found)
    assert together.shape == (20, BANDS) and together.dtype == np.uint64
    for number, grams in enumerate(found):
        assert np.array_equal(bands([grams])[0], together[number])
    assert np.array_equal(bands(found[::-1]), together[::-1])


def test_equal_rows_in_different_bands_do_not_meet() -> None:
    banded = bands([ngrams(text, NGRAM) for text in ("a", "b", "a b c d e f g", "")])
    assert len(set(banded.ravel().tolist())) == banded.size


def test_no_documents_and_empty_ones() -> None:
    assert bands([]).shape == (0, BANDS)
    empty = np.empty(0, dtype=np.uint64)
    banded = bands([empty, ngrams("x", NGRAM), *[empty] * 100])
    assert grouped(banded) == []
    assert near_copies([[0, 1, 2]], int, lambda _: empty) == {}


def test_the_same_bands_on_every_machine() -> None:
    """Parts that other machines made are reused, so these numbers must not change unnoticed."""
    assert f"{int(bands([ngrams('def f(x): return x + 1', NGRAM)])[0, 0]):016x}" == "4114b5343875719d"


# -------------------------------------------------------------------------------------------------------------- jaccard


@given(NUMBERS, NUMBERS)
def test_jaccard_is_that_of_sets(a: set[int], b: set[int]) -> None:
    assert jaccard(array(a), array(b)) == jaccard(array(b), array(a)) == _jaccard(a, b)


# ------------------------------------------------------------------------------------------------------------- clusters


def _components(groups: list[list[int]]) -> list[set[int]]:
    """By joining what overlaps until nothing does."""
    found: list[set[int]] = []
    for group in groups:
        joined = set(group)
        apart = [other for other in found if not other & joined]
        for other in found:
            if other & joined:
                joined |= other
        found = [*apart, joined]
    return [one for one in found if len(one) > 1]


@given(GROUPS, st.randoms(use_true_random=False))
def test_clusters_are_what_is_linked(groups: list[list[int]], rng: random.Random) -> None:
    found = clusters(groups)
    members = [set().union(*cluster) for cluster in found]
    expected = sorted((sorted(one) for one in _components([g for g in groups if len(set(g)) > 1])), key=lambda m: m[0])
    assert sorted(sorted(one) for one in members) == expected
    assert sorted(group for cluster in found for group in cluster) == sorted(
        {tuple(sorted(set(group))) for group in groups if len(set(group)) > 1}
    )
    shuffled = [rng.sample(group, len(group)) for group in rng.sample(groups, len(groups))]
    assert clusters(shuffled) == found


# ----------------------------------------------------------------------------------------------------------- the choice


def _greedy(groups: list[list[int]], rank: Callable[[int], int], sets: list[set[int]]) -> dict[int, Copy]:
    """All pairs of all groups compared; then by rank."""
    near = {pair for group in groups for pair in combinations(sorted(set(group)), 2)
            if _jaccard(sets[pair[0]], sets[pair[1]]) >= THRESHOLD}  # fmt: skip
    kept: list[int] = []
    dropped: dict[int, Copy] = {}
    for document in sorted({member for group in groups for member in group}, key=lambda d: (rank(d), d)):
        hits = [other for other in kept if tuple(sorted((document, other))) in near]
        if hits:
            dropped[document] = Copy(hits[0], _jaccard(sets[document], sets[hits[0]]))
        else:
            kept.append(document)
    return dropped


@given(
    st.lists(st.sets(st.integers(0, 6)), min_size=31, max_size=31),
    GROUPS,
    st.lists(st.integers(0, 9), min_size=31, max_size=31),
    st.randoms(use_true_random=False),
)
def test_the_choice_is_that_of_all_pairs_by_rank(
    sets: list[set[int]], groups: list[list[int]], ranks: list[int], rng: random.Random
) -> None:
    def load(document: int) -> Hashes:
        return array(sets[document])

    dropped = near_copies(groups, ranks.__getitem__, load)
    assert dropped == _greedy(groups, ranks.__getitem__, sets)
    shuffled = [rng.sample(group, len(group)) for group in rng.sample(groups, len(groups))]
    assert near_copies(shuffled, ranks.__getitem__, load) == dropped
    apart: dict[int, Copy] = {}
    for cluster in rng.sample(clusters(groups), len(clusters(groups))):
        apart |= near_copies(cluster, ranks.__getitem__, load)
    assert apart == dropped, "clusters can be worked on apart"


def test_a_chain_is_not_one_document() -> None:
    """Each is near the next, the first and the third are not."""
    sets = [set(range(100)), set(range(12, 112)), set(range(24, 124)), set(range(36, 136))]
    dropped = near_copies([[0, 1, 2, 3]], int, lambda document: array(sets[document]))
    assert dropped == {1: Copy(0, 88 / 112), 3: Copy(2, 88 / 112)}


def test_ten_thousand_copies_take_ten_thousand_comparisons() -> None:
    body = " ".join(f"word_{number}" for number in range(200))
    texts = [f"def function_{number % 7}(): {body}" for number in range(10_000)]
    found = [ngrams(text, NGRAM) for text in texts]
    groups = grouped(bands(found))
    assert max(len(group) for group in groups) > 9_000
    loads = 0

    def load(document: int) -> Hashes:
        nonlocal loads
        loads += 1
        return found[document]

    (cluster,) = clusters(groups)
    dropped = near_copies(cluster, lambda document: -document, load)
    assert set(dropped) == set(range(9_999)) and {copy.kept for copy in dropped.values()} == {9_999}
    assert loads < 3 * len(texts)


def test_sizes_alone_can_decide() -> None:
    sets = [set(range(100)), set(range(69)), set(range(70))]
    assert near_copies([[0, 1], [0, 2]], int, lambda d: array(sets[d])) == {2: Copy(0, 0.7)}


# -------------------------------------------------------------------------------------------------------------- scratch


@given(st.lists(st.sets(st.integers(0, 2**64 - 1), max_size=20), max_size=8), st.integers(0, 200))
def test_shingles_are_read_back(tmp_path_factory: pytest.TempPathFactory, sets: list[set[int]], limit: int) -> None:
    path = tmp_path_factory.mktemp("scratch") / "x.shingles"
    with ShingleWriter(path) as writer:
        places = [writer.add(array(one)) for one in sets]
        assert not path.exists()
        writer.close()
    assert list(path.parent.iterdir()) == [path]
    reader = ShingleReader(limit)
    for _ in range(2):
        for place, one in zip(places, sets, strict=True):
            assert reader.load(path, *place).tolist() == sorted({value & 0xFFFFFFFF for value in one})


def test_a_reader_keeps_no_more_than_it_is_allowed(tmp_path: Path) -> None:
    with ShingleWriter(tmp_path / "x") as writer:
        places = [writer.add(array(range(number * 100, number * 100 + 100))) for number in range(50)]
        writer.close()
    reader = ShingleReader(limit=1000)
    arrays = [reader.load(tmp_path / "x", *place) for place in places]
    assert reader.load(tmp_path / "x", *places[-1]) is arrays[-1], "read twice"
    assert reader.load(tmp_path / "x", *places[0]) is not arrays[0], "never forgotten"


def test_what_was_not_finished_is_not_there(tmp_path: Path) -> None:
    def fail() -> None:
        with ShingleWriter(tmp_path / "x") as writer:
            writer.add(array([1]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with ShingleWriter(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    with ShingleWriter(tmp_path / "x") as writer:
        at, count = writer.add(array(range(100)))
        writer.close()
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-1])
    with pytest.raises(CodegenError, match=r"/x: shorter than it was written; remove it and build again$"):
        ShingleReader().load(tmp_path / "x", at, count)

"""Decoding with a backend that replays given tokens: stop strings, halves of characters, limits, caches given back.

The replaying backend says what the model would, so that the expected text can be worked out from the tokens alone.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codegen25.config import ModelConfig
from codegen25.engine.backend import Logits, Row
from codegen25.engine.decode import Piece, Request, decode
from codegen25.engine.sampling import Sampling, log_softmax
from codegen25.tokenizer import GPT2_PATTERN, Tokenizer

WORDS = [b"ab", b"abc", b"bc", b"\n\n", b"  ", b"\xe6\xbc", b"\xbc\xa2", b"\xf0\x9f", b"stop", b"st", b"op"]
EOT, SEP, EOM, MASK = 300, 301, 302, 303
TOKENIZER = Tokenizer(
    {bytes([n]): n for n in range(256)} | {word: 256 + n for n, word in enumerate(WORDS)},
    pattern=GPT2_PATTERN,
    control={"<|endoftext|>": EOT, "<sep>": SEP, "<eom>": EOM, "<mask_1>": MASK},
)
SIZE = 304
ANY = np.array([id < 256 + len(WORDS) or id >= EOT for id in range(SIZE)])
ENDS = frozenset({EOT, EOM})


def spelled(script: Sequence[int]) -> str:
    """What the tokens spell, up to a character that they leave half said."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(TOKENIZER.decode_bytes(script))


class Replay:
    """A backend whose sequence that began with prompt p goes on with `scripts[p]`, then with <|endoftext|>."""

    def __init__(self, scripts: Mapping[tuple[int, ...], Sequence[int]]) -> None:
        self.scripts = scripts
        self.held: dict[int, list[int]] = {}
        self.made = 0
        self.calls: list[list[Row]] = []

    config = ModelConfig(SIZE, 8, 8, 1, 1, 1, 8, 64)
    cache_bytes = 0

    def new(self) -> int:
        self.made += 1
        self.held[self.made] = []
        return self.made

    def logits_after(self, ids: Sequence[int]) -> Logits:
        """[1, V], the scripted token far ahead of the others."""
        row = np.random.default_rng(len(ids)).standard_normal((1, SIZE)).astype(np.float32)
        (script,) = [[*script, EOT] for prompt, script in self.scripts.items() if tuple(ids[: len(prompt)]) == prompt]
        (prompt,) = [prompt for prompt in self.scripts if tuple(ids[: len(prompt)]) == prompt]
        row[0, script[min(len(ids) - len(prompt), len(script) - 1)]] += 50
        return row

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        self.calls.append(list(rows))
        for sequence, tokens, all_logits in rows:
            assert tokens and not all_logits
            self.held[sequence] += tokens
        return [self.logits_after(self.held[sequence]) for sequence, _, _ in rows]

    def fork(self, sequence: int) -> int:
        other = self.new()
        self.held[other] = list(self.held[sequence])
        return other

    def truncate(self, sequence: int, length: int) -> None:
        del self.held[sequence][length:]

    def length(self, sequence: int) -> int:
        return len(self.held[sequence])

    def free(self, sequence: int) -> None:
        del self.held[sequence]


def run(script: Sequence[int], **settings: object) -> list[Piece]:
    backend = Replay({(1, 2): script})
    request = Request([1, 2], ANY, ENDS, **settings)  # type: ignore[arg-type]
    pieces = list(decode(backend, TOKENIZER, [request]))
    assert not backend.held
    assert [piece.finish is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return pieces


def text_of(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def tokens_of(pieces: Sequence[Piece]) -> list[int]:
    return [piece.token for piece in pieces if piece.token is not None]


def ids(*words: bytes) -> list[int]:
    return [word[0] if len(word) == 1 else 256 + WORDS.index(word) for word in words]


LETTERS = st.lists(st.sampled_from([*map(ord, "abcstop\n "), *range(256, 267)]), max_size=14)
STOPS = st.lists(st.text("abcsto\n", min_size=1, max_size=4), max_size=3).map(tuple)


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Character by character: the text before the stop string that is complete first (the longest of several)."""
    for end in range(1, len(text) + 1):
        met = [s for s in stop if text[:end].endswith(s)]
        if met:
            return text[: end - max(map(len, met))], True
    return text, False


@given(LETTERS, STOPS)
@example(ids(b"abc"), ("abcd", "bc"))
@example(ids(b"ab", b"c", b"d"), ("abcd", "bc"))
@example(ids(b"a", b"abc"), ("aab", "aabc"))
def test_the_text_ends_in_front_of_the_first_stop_string(script: list[int], stop: tuple[str, ...]) -> None:
    pieces = run(script, stop=stop)
    whole = spelled(script)
    expected, met = cut(whole, stop)
    assert text_of(pieces) == expected
    assert not any(s in expected for s in stop)
    assert pieces[-1].finish == "stop" and pieces[-1].stop_id == (None if met else EOT)
    # No token is asked for beyond the one that completes the stop string.
    used = tokens_of(pieces)
    assert used == script[: len(used)] and (used == script or met)
    if met:
        assert not cut(spelled(used[:-1]), stop)[1]


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("abcsto漢👧"), max_size=14), STOPS, st.data())
def test_characters_are_whole_in_every_piece(text: str, stop: tuple[str, ...], data: st.DataObject) -> None:
    """Whatever tokens spell it: here one per byte, or as the tokenizer says."""
    script = list(text.encode()) if data.draw(st.booleans()) else TOKENIZER.encode(text)
    pieces = run(script, stop=stop, max_tokens=10_000)
    assert text_of(pieces) == cut(text, stop)[0]  # half a character would have come out as U+FFFD


def test_tokens_across_characters() -> None:
    """Tokens that end in the middle of one character and begin in the middle of another."""
    pieces = run(ids(b"\xe6\xbc", b"\xa2", b"\xe6", b"\xbc\xa2", b"\xf0\x9f", b"\x91", b"\xa7"))
    assert [piece.text for piece in pieces] == ["", "漢", "", "漢", "", "", "👧", ""]


def test_text_is_held_back_no_longer_than_needed() -> None:
    pieces = run(ids(b"st", b"st", b"op", b"\n", b"s"), stop=("stop\n!",))
    assert [piece.text for piece in pieces] == ["", "st", "", "", "stop\n", "s"]
    assert pieces[-1].stop_id == EOT


def test_bytes_that_are_not_utf8() -> None:
    assert text_of(run([*ids(b"a"), 0xFF, *ids(b"b"), 0xE6])) == "a\ufffdb"  # the half character at the end goes


@pytest.mark.parametrize("end", [EOT, EOM])
def test_an_ending_id_is_no_part_of_the_answer(end: int) -> None:
    pieces = run([*ids(b"ab"), end, *ids(b"c")])
    assert (text_of(pieces), tokens_of(pieces)) == ("ab", ids(b"ab"))
    assert (pieces[-1].finish, pieces[-1].stop_id) == ("stop", end)


@given(LETTERS, st.integers(0, 16))
def test_max_tokens(script: list[int], most: int) -> None:
    pieces = run(script, max_tokens=most)
    assert tokens_of(pieces) == script[:most]
    assert text_of(pieces) == spelled(script[:most])
    # The id that ends an answer is asked for only when there is a token left.
    assert pieces[-1].finish == ("stop" if len(script) < most else "length")


def test_max_tokens_0_runs_nothing() -> None:
    backend = Replay({})
    requests = [Request([1], ANY, ENDS, max_tokens=0), Request([2], ANY, ENDS, b"ab", max_tokens=0)]
    assert list(decode(backend, TOKENIZER, requests)) == [Piece(n, "", None, 0.0, "length") for n in (0, 1)]
    assert not backend.calls and not backend.held
    assert list(decode(backend, TOKENIZER, [])) == []


def test_a_stop_string_in_the_last_token() -> None:
    assert run(ids(b"ab", b"abc"), stop=("bc",), max_tokens=2)[-1].finish == "stop"
    pieces = run(ids(b"ab", b"abc"), stop=("cd",), max_tokens=2)
    assert (text_of(pieces), pieces[-1].finish) == ("ababc", "length")


# --------------------------------------------------------------------------------------------------- required bytes


def test_required_bytes_are_no_part_of_the_text() -> None:
    pieces = run(ids(b"ab", b"c", b"stop"), required=b"a")
    assert (text_of(pieces), tokens_of(pieces)) == ("bcstop", ids(b"ab", b"c", b"stop"))


def test_tokens_that_only_spell_required_bytes_are_free() -> None:
    # "abs" is spelled "ab" + "st"; the script is what the model would like.
    pieces = run(ids(b"ab", b"st", b"op"), required=b"abs", max_tokens=2)
    assert (text_of(pieces), tokens_of(pieces)) == ("top", ids(b"st", b"op"))
    assert pieces[0].token is None and pieces[-1].finish == "length"


def test_stop_strings_are_looked_for_in_new_text_only() -> None:
    pieces = run(ids(b"ab", b"c", b"ab"), required=b"a", stop=("ab", "bca"))
    assert text_of(pieces) == "" and pieces[-1].finish == "stop" and pieces[-1].stop_id is None


def test_a_model_that_wants_something_else_still_spells_the_required_bytes() -> None:
    pieces = run(ids(b"c", b"c", b"c", b"c"), required="漢a".encode())
    spelled = TOKENIZER.decode_bytes(tokens_of(pieces))
    assert spelled.startswith((b"a", b"c"))
    assert not text_of(pieces).startswith("漢")


# ----------------------------------------------------------------------------------- several requests, and the caches


def test_requests_side_by_side_are_requests_alone() -> None:
    scripts = {(1,): ids(b"ab", b"c"), (2, 3): ids(b"st", b"op", b"st", b"op"), (4,): [], (5,): ids(b"abc", b"stop")}
    requests = [
        Request([1], ANY, ENDS),
        Request([2, 3], ANY, ENDS, stop=("ops",)),
        Request([4], ANY, ENDS),
        Request([5], ANY, ENDS, max_tokens=1),
        Request([5], ANY, ENDS, max_tokens=0),
        Request([2, 3], ANY, ENDS, max_tokens=3),
        Request([2, 3], ANY, ENDS, required=b"s"),
    ]
    backend = Replay(scripts)
    together = list(decode(backend, TOKENIZER, requests))
    assert not backend.held
    assert len(backend.calls[0]) == 4  # equal prompts are run once
    for number, request in enumerate(requests):
        (alone,) = [list(decode(Replay(scripts), TOKENIZER, [request]))]
        ours = [piece for piece in together if piece.request == number]
        assert [(p.text, p.token, p.finish, p.stop_id) for p in ours] == [
            (p.text, p.token, p.finish, p.stop_id) for p in alone
        ]


@pytest.mark.parametrize("taken", [0, 1, 2, 5])
def test_closing_early_gives_the_caches_back(taken: int) -> None:
    backend = Replay({(1,): ids(b"ab", b"c") * 10, (2,): ids(b"st") * 10})
    pieces = decode(backend, TOKENIZER, [Request([n], ANY, ENDS) for n in (1, 2, 1)])
    for _ in range(taken):
        next(pieces)
    assert len(backend.held) == (3 if taken else 0)
    pieces.close()  # type: ignore[attr-defined]
    assert not backend.held


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_an_error_gives_the_caches_back(failing: int) -> None:
    class Failing(Replay):
        def forward(self, rows: Sequence[Row]) -> list[Logits]:
            if len(self.calls) == failing - 1:
                raise MemoryError
            return super().forward(rows)

    backend = Failing({(1,): ids(b"ab") * 9, (2,): ids(b"st") * 9})
    with pytest.raises(MemoryError):
        list(decode(backend, TOKENIZER, [Request([n], ANY, ENDS) for n in (1, 2, 1)]))
    assert not backend.held


# ------------------------------------------------------------------------------------------ vocabulary and likelihood


def test_ids_outside_the_vocabulary_never_come() -> None:
    vocabulary = ANY.copy()
    vocabulary[ids(b"c")] = False
    assert tokens_of(run(ids(b"ab", b"c", b"ab"), max_tokens=3)) == ids(b"ab", b"c", b"ab")
    request = Request([1, 2], vocabulary, ENDS, max_tokens=3)
    pieces = list(decode(Replay({(1, 2): ids(b"ab", b"c", b"ab")}), TOKENIZER, [request]))
    assert tokens_of(pieces)[:1] == ids(b"ab") and ids(b"c")[0] not in tokens_of(pieces)


def test_logprobs_are_those_of_the_whole_vocabulary() -> None:
    """Neither the filters, nor the penalty, nor the mask of the vocabulary show in them."""
    vocabulary = np.zeros(SIZE, dtype=np.bool_)
    vocabulary[ids(b"ab", b"c")] = True
    backend = Replay({(1, 2): ids(b"stop", b"ab")})
    choice = Sampling(temperature=0.7, top_k=2, repetition_penalty=1.2, seed=3)
    pieces = list(decode(backend, TOKENIZER, [Request([1, 2], vocabulary, ENDS, max_tokens=4, sampling=choice)]))
    held = [1, 2]
    for piece in pieces:
        assert piece.token is not None
        assert piece.logprob == pytest.approx(float(log_softmax(backend.logits_after(held)[0])[piece.token]))
        held.append(piece.token)


class Flat(Replay):
    """The same logits always."""

    def __init__(self, row: Logits) -> None:
        super().__init__({})
        self.row = row

    def logits_after(self, ids: Sequence[int]) -> Logits:
        return self.row


def test_the_repetition_penalty_counts_prompt_and_answer_but_no_ending_id() -> None:
    row = np.full((1, SIZE), -9, dtype=np.float32)
    row[0, [97, 98, 99, EOT]] = [4.0, 3.0, 2.5, 2.2]
    choice = Sampling(repetition_penalty=2.0)
    request = Request([EOT, 97], ANY, ENDS, sampling=choice)
    pieces = list(decode(Flat(row), TOKENIZER, [request]))
    # 97 stands in the prompt (4 becomes 2), 98 and 99 come once each; <|endoftext|> keeps its 2.2.
    assert tokens_of(pieces) == [98, 99] and pieces[-1].stop_id == EOT
    pieces = list(decode(Flat(row), TOKENIZER, [Request([EOT], ANY, ENDS, sampling=choice)]))
    assert tokens_of(pieces) == [97, 98, 99] and pieces[-1].stop_id == EOT


def test_every_sample_has_its_own_random_numbers() -> None:
    row = np.random.default_rng(0).standard_normal((1, SIZE)).astype(np.float32)
    row[0, [EOT, EOM]] = -np.inf

    def sample(index: int, seed: int, count: int = 1) -> list[list[int]]:
        choice = Sampling(temperature=1, seed=seed)
        requests = [
            Request([1], ANY, ENDS, max_tokens=6, sampling=choice, index=index + offset) for offset in range(count)
        ]
        pieces = list(decode(Flat(row), TOKENIZER, requests))
        return [tokens_of([piece for piece in pieces if piece.request == n]) for n in range(count)]

    assert sample(0, 7, 3) == [*sample(0, 7), *sample(1, 7), *sample(2, 7)]
    assert len({tuple(tokens) for index in range(3) for seed in (7, 8) for tokens in sample(index, seed)}) == 6

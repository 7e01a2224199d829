"""Layouts of editing sessions: any edits give a valid prompt within the window, and typing only appends to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25 import editing, infill
from codegen25.editing import Anchor, Limits, Prompt, place
from codegen25.errors import CodegenError, UsageError
from codegen25.tokenizer import Tokenizer, family, from_folder

FAMILY = family()
NANO = from_folder(Path(editing.__file__).parent / "models" / "nano")
SOURCE = Path(editing.__file__).read_text()

TOKENIZERS = st.sampled_from([FAMILY, NANO])
LIMITS = st.builds(Limits.of, st.integers(64, 400), st.integers(1, 40))
CONTROL = ["<mask_1>", "<|endoftext|>"]
SNIPPETS = st.sampled_from(
    ["x", " ", "\n", "    ", "\n    ", "return ", "'re", "12", "é", "🙂", "\r\n", "\t", "))", "a" * 70, *CONTROL]
)
TEXTS = st.lists(st.one_of(SNIPPETS, st.text(max_size=8)), max_size=8).map("".join)


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[str, str]]:
    """(prefix, suffix) of a cursor: typing, deleting, and jumps and changes anywhere, from a beginning in real code."""
    text = draw(st.one_of(st.just(SOURCE), TEXTS))
    at = draw(st.integers(0, len(text)))
    states = [(text[:at], text[at:])]
    for _ in range(draw(st.integers(1, 12))):
        prefix, suffix = states[-1]
        match draw(st.sampled_from(["type", "type", "type", "delete", "move", "behind", "front"])):
            case "type":
                prefix += draw(TEXTS)
            case "delete":
                prefix = prefix[: max(0, len(prefix) - draw(st.integers(1, 300)))]
            case "move":
                whole = prefix + suffix
                at = draw(st.integers(0, len(whole)))
                prefix, suffix = whole[:at], whole[at:]
            case "behind":
                at = draw(st.integers(0, len(suffix)))
                suffix = suffix[:at] + draw(TEXTS) + suffix[at + draw(st.integers(0, 3)) :]
            case "front":
                at = draw(st.integers(0, len(prefix)))
                prefix = prefix[:at] + draw(TEXTS) + prefix[at + draw(st.integers(0, 3)) :]
        states.append((prefix, suffix))
    return states


def parts(t: Tokenizer, prompt: Prompt) -> tuple[bytes, bytes]:
    """What an infill prompt holds of the text before and behind the cursor; asserts that it is one."""
    ids = list(prompt.ids)
    mask = t.masks[0]
    first = ids.index(mask)
    second = ids.index(mask, first + 1)
    assert ids[second - 2 : second + 1] == [t.eot, t.sep, mask]
    head, suffix, tail = ids[:first], ids[first + 1 : second - 2], ids[second + 1 :]
    assert not any(t.is_control(id) for id in [*head, *suffix, *tail])
    return t.decode_bytes(head + tail) + prompt.required, t.decode_bytes(suffix)


@given(TOKENIZERS, LIMITS, edits(), st.integers(0, 9), st.lists(st.booleans(), min_size=13, max_size=13))
def test_every_prompt_is_valid_and_fits(
    t: Tokenizer, limits: Limits, states: list[tuple[str, str]], lines: int, early: list[bool]
) -> None:
    anchor: Anchor | None = None
    for (prefix, suffix), is_early in zip(states, early, strict=False):
        anchor, prompt = place(t, limits, anchor, prefix, suffix, lines=lines, early=is_early)
        before, behind = parts(t, prompt)
        assert prefix.encode().endswith(before)
        assert suffix.encode().startswith(behind)
        assert len(prompt.ids) + len(prompt.required) <= limits.prompt
        assert anchor.trimmed or (before, behind) == (prefix.encode(), suffix.encode())


@given(TOKENIZERS, LIMITS, st.integers(0, len(SOURCE)), st.lists(TEXTS, min_size=1, max_size=8))
def test_typing_extends_the_stable_part(t: Tokenizer, limits: Limits, at: int, typed: list[str]) -> None:
    suffix = SOURCE[at:]
    anchor, old = place(t, limits, None, SOURCE[:at], suffix)
    prefix = SOURCE[:at]
    for text in typed:
        stable = stable_part(t, anchor, prefix)
        prefix += text
        after, new = place(t, limits, anchor, prefix, suffix)
        if after is anchor:
            assert editing.common(old.ids, new.ids) >= stable
        else:  # only because the tail had no more room
            assert len(old.ids) - len(anchor.context) + len((text + old.required.decode()).encode()) > limits.tail
        anchor, old = after, new


def stable_part(t: Tokenizer, anchor: Anchor, prefix: str) -> int:
    """How many ids of a prompt no text behind it can change: all but those of the last piece."""
    tail = prefix[len(anchor.before) :]
    return len(anchor.context) + len(t.encode(tail.removesuffix(t.last_piece(tail))))


def typed_file(limits: Limits, count: int) -> tuple[list[Anchor], list[Sequence[int]]]:
    """A stretch of a file typed key by key in its middle."""
    at = len(SOURCE) // 3
    anchors: list[Anchor] = []
    prompts: list[Sequence[int]] = []
    anchor: Anchor | None = None
    for end in range(at, at + count):
        anchor, prompt = place(NANO, limits, anchor, SOURCE[:end], SOURCE[at + count :])
        anchors.append(anchor)
        prompts.append(prompt.ids)
    return anchors, prompts


def test_a_key_costs_its_own_tokens() -> None:
    anchors, prompts = typed_file(Limits.of(2048, 32), 400)
    assert len(set(map(id, anchors))) == 1
    costs = editing.recomputed(prompts)
    assert costs[0] == len(prompts[0]) and max(costs[1:]) <= 6 and sum(costs[1:]) < 1.3 * 400


def test_a_long_tail_opens_a_new_hole_that_keeps_the_beginning_of_the_head() -> None:
    limits = Limits.of(600, 32)
    anchors, prompts = typed_file(limits, 900)
    changes = [n for n in range(1, len(anchors)) if anchors[n] is not anchors[n - 1]]
    assert changes and any(anchors[n].start == anchors[n - 1].start for n in changes)
    assert min(b - a for a, b in zip([0, *changes], changes, strict=False)) > 100
    costs = editing.recomputed(prompts)
    assert [n for n in range(1, len(costs)) if costs[n] > 20] == changes


def test_deleting_keeps_the_hole_and_what_is_left() -> None:
    limits = Limits.of(600, 32)
    prefix, suffix = SOURCE[:3000], SOURCE[3400:]
    anchor, old = place(NANO, limits, None, prefix, suffix)
    for count in range(1, 40):
        after, new = place(NANO, limits, anchor, prefix[:-count], suffix)
        assert after is anchor
        assert editing.common(old.ids, new.ids) >= stable_part(NANO, anchor, prefix[:-count])


def test_an_early_hole_is_as_good_for_the_next_key() -> None:
    limits = Limits.of(600, 32)
    anchor, _ = place(NANO, limits, None, SOURCE[:3000], SOURCE[3600:])
    assert place(NANO, limits, anchor, SOURCE[:3050], SOURCE[3600:], early=True)[0] is anchor
    early, prompt = place(NANO, limits, anchor, SOURCE[:3300], SOURCE[3600:], early=True)
    assert early is not anchor and len(early.before) > len(anchor.before)
    after, following = place(NANO, limits, early, SOURCE[:3301], SOURCE[3600:])
    assert after is early
    assert editing.common(prompt.ids, following.ids) >= stable_part(NANO, early, SOURCE[:3300])


def test_a_bracket_closed_behind_the_cursor_leaves_the_head() -> None:
    limits = Limits.of(600, 32)
    anchor, old = place(NANO, limits, None, SOURCE[:3000], SOURCE[3000:])
    after, new = place(NANO, limits, anchor, SOURCE[:3000] + "(", ")" + SOURCE[3000:])
    assert after is not anchor and after.before == anchor.before
    assert editing.common(old.ids, new.ids) >= old.ids.index(NANO.masks[0])


def test_changes_far_behind_the_cursor_cost_nothing() -> None:
    limits = Limits.of(600, 32)
    anchor, _ = place(NANO, limits, None, SOURCE[:300], SOURCE[300:])
    assert anchor.kept and len(anchor.kept) < len(SOURCE) - 400
    assert place(NANO, limits, anchor, SOURCE[:301], SOURCE[300:-50] + "changed")[0] is anchor
    assert place(NANO, limits, anchor, SOURCE[:301], "x" + SOURCE[300:])[0] is not anchor


def test_a_jump_from_the_beginning_to_the_end_of_a_long_file() -> None:
    limits = Limits.of(100, 32)
    anchor, _ = place(NANO, limits, None, "", SOURCE)
    after, prompt = place(NANO, limits, anchor, SOURCE, "")
    assert after.trimmed and len(parts(NANO, prompt)[0]) > 80


def test_a_file_that_is_one_line() -> None:
    limits = Limits.of(200, 32)
    text = "x = [" + "1, 22, 'é', " * 40_000
    anchor, prompt = place(NANO, limits, None, text, text)
    assert text.encode().endswith(parts(NANO, prompt)[0])
    assert place(NANO, limits, anchor, text + "3", text)[0] is anchor


def test_limits() -> None:
    for window, max_tokens in ((2048, 0), (2048, -1), (2048, 2048), (48, 32)):
        with pytest.raises(UsageError, match="max tokens"):
            Limits.of(window, max_tokens)
    with pytest.raises(CodegenError, match="surrogate"):
        place(NANO, Limits.of(200, 32), None, "x\ud800", "")


def test_recomputed_counts_what_a_cache_of_the_last_prompt_does_not_hold() -> None:
    assert editing.recomputed([[1, 2, 3], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2], [7]]) == [3, 1, 2, 1, 1]
    assert editing.recomputed([]) == []
    assert infill.overhead(1) == 6

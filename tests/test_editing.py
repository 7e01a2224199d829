"""Editing sessions: any edits give a valid prompt within the window, typing appends to it, and a key costs little."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_model import twins

from codegen25 import editing, infill
from codegen25.complete import Model
from codegen25.config import ModelConfig
from codegen25.editing import Anchor, Editing, Limits, Prompt, place, run_request
from codegen25.engine.cpu import CpuBackend
from codegen25.engine.scheduler import Scheduler
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


def shares(prompt: Prompt) -> tuple[int, int]:
    """How many ids of a prompt are head, and how many suffix."""
    first = prompt.ids.index(NANO.masks[0])
    return first, prompt.ids.index(NANO.masks[0], first + 1) - first - 3


def test_head_and_suffix_have_a_fair_share_wherever_the_cursor_jumps() -> None:
    limits = Limits.of(600, 32)
    anchor: Anchor | None = None
    for at in (6000, 3800, 4200, 5000, 2500, 7500, 6500, 5900, 3000):
        anchor, prompt = place(NANO, limits, anchor, SOURCE[:at], SOURCE[at:])
        head, suffix = shares(prompt)
        assert head >= (limits.around - 30) // 2
        assert suffix >= (limits.around - limits.tail) // 4 - 40  # a line may not fit


def test_a_line_put_in_far_above_leaves_the_head_at_a_line_start() -> None:
    limits = Limits.of(600, 32)
    text = SOURCE.replace("a", "é")  # a character is not a byte
    anchor, old = place(NANO, limits, None, text[:6000], text[6000:])
    assert anchor.start and text[anchor.start - 1] == "\n"
    _, new = place(NANO, limits, anchor, "# a comment\n" + text[:6000], text[6000:])
    assert new == old


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


# ------------------------------------------------------------------------------------------------- asking a model

CONFIG = ModelConfig(51200, 64, 64, 2, 4, 2, 16, 640, tied=True)
ENGINE, _ = twins(CONFIG, seed=3)
PREFIX, SUFFIX = SOURCE[:4000], SOURCE[4300:]
TYPED = SOURCE[4000:4040]


def model() -> Model:
    return Model(CpuBackend(ENGINE, CONFIG), FAMILY)


def computed(m: Model) -> int:
    return m.scheduler.counts.computed


def test_suggestions_are_those_of_an_empty_cache() -> None:
    m = model()
    session, alone = Editing(m, max_tokens=6), Editing(m, max_tokens=6)
    costs = []
    for end in range(len(TYPED)):
        before = computed(m)
        suggestion = session.suggest(PREFIX + TYPED[:end], SUFFIX)
        costs.append(computed(m) - before)
        request = alone.request(PREFIX + TYPED[:end], SUFFIX)
        if end % 8 == 0:
            fresh = Scheduler(m.backend, FAMILY, longest_draft=0)
            assert suggestion == run_request(fresh, request)
            fresh.close()
    assert costs[0] > 400 and max(costs[1:]) < 60
    m.scheduler.close()


def test_what_is_typed_along_a_suggestion_is_not_asked() -> None:
    m = model()
    session = Editing(m, max_tokens=6, stop=[])
    suggestion = session.suggest(PREFIX, SUFFIX)
    assert suggestion
    before = computed(m)
    shown: list[str] = []
    for end in range(len(suggestion)):
        assert session.suggest(PREFIX + suggestion[:end], SUFFIX, on_text=shown.append) == suggestion[end:]
    assert computed(m) == before and shown[0] == suggestion
    # All of it accepted, another way taken, or text behind the cursor changed: the model is asked.
    for prefix, suffix in ((PREFIX + suggestion, SUFFIX), (PREFIX + "\0", SUFFIX), (PREFIX, "#" + SUFFIX)):
        assert session.known(prefix, suffix) is None
    m.scheduler.close()


def test_known_prefers_the_latest_suggestion() -> None:
    session = Editing(model())
    assert session.known("a", "") is None
    session.remember("a", "", "bcd")
    session.remember("ab", "", "xy")
    session.remember("q", "", "")
    assert session.known("ab", "") == "xy"
    assert session.known("abc", "") == "d"
    assert session.known("abx", "") == "y"
    assert session.known("q", "") == ""  # it is known that there is nothing to suggest
    for _ in range(editing.REMEMBERED):
        session.remember("z", "", "z")
    assert session.known("abc", "") is None


def test_a_superseded_suggestion_leaves_no_trace_but_its_cache() -> None:
    m = model()
    session = Editing(m, max_tokens=6)
    steps = iter([False, False, True])
    assert session.suggest(PREFIX, SUFFIX, is_superseded=lambda: next(steps)) is None
    assert session.known(PREFIX, SUFFIX) is None
    text: list[str] = []
    assert session.suggest(PREFIX, SUFFIX, on_text=text.append) == "".join(text)
    m.scheduler.step()
    assert not m.scheduler.active
    assert m.scheduler.counts.reused > 0  # what ran of the prompt before it was given up
    m.scheduler.close()


def test_a_jump_made_ready_in_a_pause() -> None:
    m = model()
    session = Editing(m, max_tokens=6)
    session.suggest(PREFIX, SUFFIX)
    jumped = SOURCE[:1000], SOURCE[1100:]
    session.run_ahead(*jumped)
    before = computed(m)
    session.suggest(jumped[0] + "x", jumped[1])
    assert computed(m) - before < 60
    assert session.warm(jumped[0] + "xy", jumped[1]) is None
    m.scheduler.close()


def test_a_new_hole_is_used_only_when_it_is_ready() -> None:
    m = model()
    session = Editing(m, max_tokens=6)
    session.suggest(PREFIX[:3000], SUFFIX)
    hole = session._anchor
    typed = PREFIX[:3200]
    session.suggest(typed, SUFFIX)
    assert session._anchor is hole and session.warm(typed, SUFFIX) is not None
    session.run_ahead(typed, SUFFIX, is_superseded=lambda: True)
    session.suggest(typed + "x", SUFFIX)
    assert session._anchor is hole
    session.run_ahead(typed + "x", SUFFIX)
    before = computed(m)
    session.suggest(typed + "xy", SUFFIX)
    assert session._anchor is not hole and computed(m) - before < 60
    m.scheduler.close()


def test_related_texts_change_nothing() -> None:
    m = model()
    plain = Editing(m, max_tokens=12, stop=[]).suggest(PREFIX, SUFFIX)
    other = Editing(model(), max_tokens=12, stop=[], related=[f"{PREFIX[-200:]}{plain}", ""]).suggest(PREFIX, SUFFIX)
    assert plain == other


def test_arguments_of_a_session() -> None:
    with pytest.raises(UsageError, match="stop is"):
        Editing(model(), stop="\n")
    with pytest.raises(UsageError, match="stop is"):
        Editing(model(), stop=[""])
    with pytest.raises(UsageError, match="max tokens"):
        Editing(model(), max_tokens=0)

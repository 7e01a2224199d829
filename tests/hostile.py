"""Texts that are hard on whoever cuts them: control names, any line ends or none, blanks, emoji, long lines."""

from __future__ import annotations

from hypothesis import strategies as st

_lines = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["", "    return self.x", "\t\tpass", "<mask_1>", "<|endoftext|><sep><mask_1>x<eom>", "𝕏é𓀀" * 9]),
)
_endings = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "", "\x0c", "\u2028"])
_mixed = st.lists(st.tuples(_lines, _endings), max_size=12).map(lambda pairs: "".join(a + b for a, b in pairs))
_repeated = st.tuples(
    st.sampled_from(["\n", "\r\n", " ", "-", "x", "🙂", "  \n", "a b\n", "é\r\n", "<mask_1>", "<eom>\n", "ж = 1;"]),
    st.integers(1, 3000),
).map(lambda pair: pair[0] * pair[1])

texts = st.one_of(_mixed, _mixed, _repeated, st.just("y = [" + "1, " * 33_000 + "]"), st.just("𓀀" * 100_000))

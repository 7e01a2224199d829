"""Policies: SPDX expressions met by AND, OR and WITH as a slow reading has it; files that say what they cannot mean."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.data import spdx
from codegen25.data.policy import Policy, read_policy
from codegen25.errors import CodegenError

PERMISSIVE = read_policy("permissive")
ALLOWED = ["MIT", "Apache-2.0", "BSD-3-Clause", "ISC", "0BSD"]
FORBIDDEN = ["GPL-2.0-only", "GPL-3.0-or-later", "LGPL-2.1-only", "MPL-2.0", "AGPL-3.0-only", "EPL-2.0", "CDDL-1.0"]
EXCEPTIONS = {"LLVM-exception": True, "Classpath-exception-2.0": False}

licenses = st.sampled_from(ALLOWED + FORBIDDEN)
simple = st.one_of(licenses, st.tuples(licenses, st.just("WITH"), st.sampled_from(sorted(EXCEPTIONS))))
branches = st.sampled_from(["AND", "OR"])
trees = st.recursive(simple, lambda inner: st.tuples(branches, st.lists(inner, min_size=2, max_size=3)), max_leaves=12)


def written(tree: object) -> str:
    if isinstance(tree, str):
        return tree
    assert isinstance(tree, tuple)
    if tree[1] == "WITH":
        return " ".join(tree)
    return "(" + f" {tree[0]} ".join(written(inner) for inner in tree[1]) + ")"


def met(tree: object) -> bool:
    """The slow reading: of the tree that was written, not of the expression."""
    if isinstance(tree, str):
        return tree in ALLOWED
    assert isinstance(tree, tuple)
    if tree[1] == "WITH":
        return tree[0] in ALLOWED and EXCEPTIONS[tree[2]]
    return (all if tree[0] == "AND" else any)(met(inner) for inner in tree[1])


@given(trees)
def test_expressions_are_met_as_boolean_logic_has_it(tree: object) -> None:
    assert PERMISSIVE.allows(written(tree)) == met(tree)


@given(trees, st.sampled_from(["lower", "upper", "title"]))
def test_the_canonical_form_means_the_same_and_is_its_own(tree: object, spelling: str) -> None:
    operators = {"AND", "OR", "WITH"}
    spelt = re.sub(r"[^() ]+", lambda w: w[0] if w[0] in operators else getattr(w[0], spelling)(), written(tree))
    canonical = spdx.normal(spelt)
    assert canonical is not None
    assert spdx.normal(canonical) == canonical
    assert PERMISSIVE.allows(canonical) == met(tree)
    named = {word for word in re.findall(r"[^() ]+", canonical) if word not in operators | set(EXCEPTIONS)}
    assert set(spdx.licenses(canonical)) == named <= {*ALLOWED, *FORBIDDEN}


@given(st.lists(trees, min_size=1, max_size=3))
def test_joined_expressions_are_all_or_any(parts: list[object]) -> None:
    expressions = [spdx.normal(written(part)) or "" for part in parts]
    assert PERMISSIVE.allows(spdx.all_of(expressions)) == all(met(part) for part in parts)
    assert PERMISSIVE.allows(spdx.any_of(expressions)) == any(met(part) for part in parts)


PIECES = [*"()+-.\0\n \u00e9", "MIT", "GPL-2.0-only", " AND ", " OR ", " WITH ", "LicenseRef-", "LicenseRef-a"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_only_an_expression_can_be_allowed(text: str) -> None:
    assert PERMISSIVE.allows(text) is False or spdx.normal(text) is not None


MONSTROUS = ["(" * 500 + "MIT" + ")" * 500, "MIT OR " * 900 + "MIT"]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "()",
        "( AND +",
        "MIT AND ()",
        "MIT Apache-2.0",
        "(MIT",
        "MIT OR",
        "AND",
        "nonsense OR MIT",
        "MIT/X11",
        *MONSTROUS,
    ],
)
def test_malformed_unknown_and_monstrous_expressions(expression: str) -> None:
    assert not PERMISSIVE.allows(expression)


def test_the_permissive_policy() -> None:
    assert not any(PERMISSIVE.allows(license) for license in FORBIDDEN)
    assert all(
        map(PERMISSIVE.allows, ["MIT", "gpl-2.0+ or mit", "Apache-2.0+", "LicenseRef-BSD", "PSF-2.0", "Unlicense"])
    )
    assert not any(
        map(PERMISSIVE.allows, ["CC-BY-4.0", "CC-BY-NC-4.0", "LicenseRef-Restricted", "Artistic-2.0", "JSON"])
    )


def test_two_policies_with_the_same_words_look_the_same_in_every_process() -> None:
    again = Policy(**{**vars(PERMISSIVE), "allow": frozenset(sorted(PERMISSIVE.allow, reverse=True))})
    assert repr(again) == repr(PERMISSIVE)
    assert repr(replace(PERMISSIVE, minimum_confidence=0.5)) != repr(PERMISSIVE)
    code = "from codegen25.data.policy import read_policy; print(repr(read_policy('permissive')))"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == repr(PERMISSIVE)


def test_a_policy_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nallow = ["mit", "LicenseRef-Ours"]\n[declared]\n"Some_Package" = "mit or isc"\n')
    mine = read_policy(path)
    assert mine.allow == {"MIT", "LicenseRef-Ours"}
    assert (mine.declaration("some-package"), mine.declaration("other")) == ("MIT OR ISC", "")
    assert not mine.allows("ISC")


@pytest.mark.parametrize(
    "text, words",
    [
        ('name = "x"\nallow = ["MIT", "Mitt"]', "Mitt"),
        ('name = "x"\nallow = ["LLVM-exception"]', "LLVM-exception"),
        ('name = "x"\nallow = ["MIT"]\nexceptions = ["MIT"]', "exception"),
        ('name = "x"\nallow = ["MIT"]\nalow = 3', "alow"),
        ('name = "x"\nallow = "MIT"', "allow"),
        ('name = "x"\nallow = [3]', "3"),
        ('allow = ["MIT"]', "name is missing"),
        ('name = "x"\nallow = ["MIT"]\nminimum_confidence = 80', "0 to 1"),
        ('name = "x"\nallow = ["MIT"]\nminimum_confidence = true', "minimum_confidence"),
        ('name = "x"\nallow = ["MIT"]\n[declared]\na = "MIT or"', "MIT or"),
        ("name = ", "no policy"),
        ("\0", "no policy"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(CodegenError) as refused:
        read_policy(path)
    assert words in str(refused.value) and str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_no_policy_of_that_name_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="permissive"):
        read_policy(tmp_path / "permisive")

"""Licences of files: headers, the nearest licence file, metadata, rows and declarations, and when they disagree."""

from __future__ import annotations

import json
from importlib.metadata import distribution
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen25.data.document import EVIDENCE
from codegen25.data.license_headers import leading_comment, read_header
from codegen25.data.license_metadata import row_license, stated_license
from codegen25.data.license_names import named
from codegen25.data.license_texts import recognise
from codegen25.data.licenses import (
    DISAGREE,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_RECOGNISED,
    REASONS,
    Decision,
    Licenses,
    governed,
)
from codegen25.data.policy import read_policy
from codegen25.data.source import Metadata
from codegen25.data.tables import STATEMENT
from codegen25.errors import CodegenError

POLICY = read_policy("permissive")
NOTHING = Metadata("")
APACHE = (Path(__file__).parent.parent / "LICENSE").read_text(encoding="utf-8")


def installed(name: str) -> str:
    """The licence file of an installed package: real words, as published."""
    found = distribution(name)
    path = next(file for file in found.files or [] if file.name.startswith(("LICENSE", "LICENCE", "COPYING")))
    return path.read_text(encoding="utf-8")


MIT, BSD, MPL = installed("pytest"), installed("click"), installed("hypothesis")
GPL_NOTICE = (
    "This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public "
    "License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any "
    "later version.\nThis program is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY.\n"
)
APACHE_NOTICE = (
    "# Copyright 2024 Someone\n#\n# Licensed under the Apache License, Version 2.0 (the \"License\");\n"
    "# you may not use this file except in compliance with the License.\n# You may obtain a copy of the License at\n#\n"
    "#     http://www.apache.org/licenses/LICENSE-2.0\n\nimport os\n"
)  # fmt: skip
TEXTS = {"MIT": MIT, "BSD-3-Clause": BSD, "Apache-2.0": APACHE, "MPL-2.0": MPL}


def python(*fields: str) -> Metadata:
    return Metadata(
        "python", "a-1.dist-info/METADATA", "\n".join(["Metadata-Version: 2.4", "Name: a", *fields, "", "prose"])
    )


def npm(**fields: object) -> Metadata:
    return Metadata("npm", "package.json", json.dumps({"name": "a"} | fields))


def whole(metadata: Metadata = NOTHING, files: dict[str, str] | None = None, declared: str = "") -> Decision:
    return Licenses(metadata, files or {}, POLICY, declared).decide("", "", "")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("# SPDX-License-Identifier: MIT\nx = 1\n", "MIT"),
        ("/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */\n", "GPL-2.0-only WITH Linux-syscall-note"),
        ("<!-- SPDX-License-Identifier: (MIT OR GPL-2.0+) -->\n<p>", "MIT OR GPL-2.0-or-later"),
        ("// SPDX-License-Identifier: MIT\n// SPDX-License-Identifier: ISC\n", "MIT AND ISC"),
        ("#!/bin/sh\n\n" + "#\n" * 20 + "# SPDX-License-Identifier: 0BSD\n", "0BSD"),
        (APACHE_NOTICE, "Apache-2.0"),
        ('"""A module.\n\n' + MIT + '"""\n', "MIT"),
        ("/*\n" + "".join(f" * {line}\n" for line in MIT.splitlines()) + " */\nint a;\n", "MIT"),
        ("/*!\n * jQuery v1\n * Licensed under the MIT license\n */\n", "MIT"),
        ("// @license MIT\nlet a\n", "MIT"),
        ("// Dual licensed under the MIT or GPL Version 2 licenses.\n", "MIT OR GPL-2.0-only"),
        ("# " + GPL_NOTICE.replace("\n", "\n# "), "GPL-3.0-or-later"),
        ("-- This file is part of x. It is free under the GNU Lesser General Public License v2.1\n", "LGPL-2.1-only"),
        ("# This file is dual licensed under the terms of the Apache License, Version\n# 2.0, and the BSD License.\n",
         "Apache-2.0 OR LicenseRef-BSD"),
        ("# Distributed under the terms of the Modified BSD License.\n", "BSD-3-Clause"),
        ("# This module has been placed in the public domain.\n", "LicenseRef-Public-Domain"),
        ("# Copyright X. All rights reserved. Proprietary and confidential.\n# Unauthorized copying is prohibited.\n",
         "LicenseRef-Restricted"),
        ('"""Tools."""\n__license__ = "GPLv3"\n', "GPL-3.0-only"),
        ("import license\nprint('GPL')\n", None),
        ("# Parses the MIT Media Lab's files, without a licence\nx = 1\n", None),
        ("x = 1\n# Licensed under the MIT license\n", None),
        ("# Works with GPL-compatible software only\n", None),
        ("# Copyright (c) X. All rights reserved. See the LICENSE file.\n", None),
        ("x = 'SPDX-License-Identifier: MIT'\n", None),
    ],
)  # fmt: skip
def test_headers(text: str, expected: str | None) -> None:
    found = read_header(text)
    assert (found.spdx if found else None) == expected


def test_a_header_that_cannot_be_understood_is_not_permissive() -> None:
    licenses = Licenses(python("License-Expression: MIT"), {}, POLICY, "")
    for header in ("# SPDX-License-Identifier: Nobodys-1.0\n", "# SPDX-License-Identifier: MIT AND\n"):
        assert licenses.decide("a.py", header, "").reason == NOT_RECOGNISED
    found = licenses.decide("a.py", "# SPDX-License-Identifier: GPL-2.0-only\n", "")
    assert (found.spdx, found.reason, found.evidence.kind, found.evidence.file) == (None, NOT_ALLOWED, "header", "a.py")


def test_only_the_comment_at_the_head_is_the_header() -> None:
    assert leading_comment("#!/bin/sh\n# one\n\n# two\nx\n# three\n").split() == ["bin/sh", "one", "two"]
    assert "later" not in leading_comment("/* a\n b */\nint x; /* later */\n")
    assert "b" in leading_comment('"""a\nb"""\n').split()
    assert "licence" not in leading_comment("x = 1\n" + "# licence\n" * 3)


def test_a_vague_header_is_made_exact_by_what_it_points_to() -> None:
    header = "# Use of this source code is governed by a BSD-style license that can be found in the LICENSE file.\n"
    assert Licenses(NOTHING, {"LICENSE": BSD}, POLICY, "").decide("a.py", header, "").spdx == "BSD-3-Clause"
    alone = Licenses(NOTHING, {}, POLICY, "").decide("a.py", header, "")
    assert (alone.spdx, alone.evidence.kind) == ("LicenseRef-BSD", "header")


@pytest.mark.parametrize("name, text", TEXTS.items())
def test_published_texts_are_recognised(name: str, text: str) -> None:
    found = recognise(text)
    assert found.spdx == name and found.confidence > 0.9
    assert recognise(text.replace("\n", "\r\n")).spdx == recognise(text.upper()).spdx == name


def test_licences_of_bundled_software_are_told_apart() -> None:
    text = BSD + "\n----\n\nThis binary distribution also bundles the following software:\n\nName: X\n\n" + MPL
    found = recognise(text)
    assert (found.spdx, found.bundled) == ("BSD-3-Clause", ("MPL-2.0",))
    assert recognise(BSD + "\n\n" + MPL).spdx == "BSD-3-Clause AND MPL-2.0"
    assert (
        recognise("This is dual-licensed, under the MIT or the MPL 2.0, at your choice.\n" + MIT + MPL).spdx
        == "MIT OR MPL-2.0"
    )
    numpy = Licenses(NOTHING, {"LICENSE.txt": installed("numpy")}, POLICY, "").decide("numpy/a.py", "", "")
    assert numpy.spdx == "BSD-3-Clause"


@pytest.mark.parametrize(
    "change",
    [
        "\nThe Software may not be used for commercial purposes: non-commercial use only.\n",
        '\n"Commons Clause" License Condition v1.0\n',
        "\nThis file is proprietary software of X.\n",
    ],
)
def test_a_restriction_beside_a_permissive_text_is_seen(change: str) -> None:
    for text in (MIT + change, change + MIT):
        assert whole(files={"LICENSE": text}).spdx is None


def test_prose_is_no_licence() -> None:
    assert recognise("We thank everybody who helped.").spdx is None
    assert whole(files={"LICENSE": "Ask us."}).reason == NOT_RECOGNISED
    assert whole(files={"LICENSE": ""}).reason == NOT_RECOGNISED


@pytest.mark.parametrize(
    "metadata, expected",
    [
        (python("License-Expression: MIT OR GPL-2.0-only"), "MIT OR GPL-2.0-only"),
        (python("License-Expression: MIT", "Classifier: License :: OSI Approved :: GPLv3"), "MIT"),
        (python("License: BSD", "Classifier: License :: OSI Approved :: BSD License"), "LicenseRef-BSD"),
        (python("License: 3-clause BSD", "Classifier: License :: OSI Approved :: BSD License"), "BSD-3-Clause"),
        (python("Classifier: License :: OSI Approved :: Apache Software License"), "Apache-2.0"),
        (python("License: UNKNOWN", "Classifier: License :: OSI Approved :: MIT License"), "MIT"),
        (python("License: " + MIT.replace("\n", "\n        ")), "MIT"),
        (python("License: Dual License", "Classifier: License :: OSI Approved :: BSD License",
                "Classifier: License :: OSI Approved :: Apache Software License"), "LicenseRef-BSD OR Apache-2.0"),
        (python("License: MIT", "Classifier: License :: OSI Approved :: BSD License"), "MIT AND LicenseRef-BSD"),
        (npm(license="ISC"), "ISC"),
        (npm(license="(MIT OR GPL-3.0)"), "MIT OR GPL-3.0-only"),
        (npm(license={"type": "MIT", "url": "x"}), "MIT"),
        (npm(licenses=[{"type": "MIT"}, {"type": "GPL-2.0"}]), "MIT OR GPL-2.0-only"),
        (npm(license="Apache 2.0"), "Apache-2.0"),
        (Metadata("dataset", "README", "mit"), "MIT"),
        (Metadata("dataset", "", STATEMENT), "LicenseRef-Permissive"),
    ],
)  # fmt: skip
def test_metadata_that_is_allowed(metadata: Metadata, expected: str) -> None:
    found = whole(metadata)
    assert (found.spdx, found.evidence.file) == (expected, metadata.file)
    assert found.evidence.kind == ("dataset" if metadata.kind == "dataset" else "metadata")


@pytest.mark.parametrize(
    "metadata, reason",
    [
        (python("License-Expression: GPL-3.0-or-later"), NOT_ALLOWED),
        (python("License-Expression: Mine"), NOT_RECOGNISED),
        (python("License: LGPL with exceptions"), NOT_ALLOWED),
        (
            python("License: MIT", "Classifier: License :: OSI Approved :: GNU General Public License (GPL)"),
            NOT_ALLOWED,
        ),
        (python("License: MIT, but ask first"), NOT_RECOGNISED),
        (python("Classifier: License :: Other/Proprietary License"), NOT_ALLOWED),
        (python("Classifier: License :: Freely Distributable"), NOT_RECOGNISED),
        (python("License: see LICENSE"), NOT_RECOGNISED),
        (python(), NOT_FOUND),
        (npm(), NOT_FOUND),
        (npm(license="UNLICENSED"), NOT_ALLOWED),
        (npm(license="SEE LICENSE IN COPYING"), NOT_FOUND),
        (npm(license=["MIT", "Mine"]), NOT_RECOGNISED),
        (npm(license=3), NOT_FOUND),
        (Metadata("npm", "package.json", "[" * 100_000), NOT_FOUND),
        (Metadata("npm", "package.json", "[]"), NOT_FOUND),
        (NOTHING, NOT_FOUND),
    ],
)
def test_metadata_that_is_not(metadata: Metadata, reason: str) -> None:
    assert (whole(metadata).spdx, whole(metadata).reason) == (None, reason)


def test_metadata_and_the_licence_file_must_both_be_allowed() -> None:
    mit, gpl = python("License-Expression: MIT"), python("License-Expression: GPL-3.0-only")
    wheel = "a-1.dist-info/licenses/LICENSE"
    agreed = whole(mit, {wheel: MIT})
    assert (agreed.spdx, agreed.evidence.kind, agreed.evidence.file) == ("MIT", "file", wheel)
    assert "License-Expression: MIT" in agreed.evidence.text
    for metadata, text in ((mit, MPL), (gpl, MIT), (mit, "Licensed under the GNU General Public License v3")):
        assert whole(metadata, {"LICENSE": text}).reason == DISAGREE
    assert whole(gpl, {"COPYING": MPL}).reason == NOT_ALLOWED
    assert whole(mit, {"LICENSE": BSD}).spdx == "MIT AND BSD-3-Clause"
    assert whole(python("License: BSD"), {"LICENSE": BSD}).spdx == "BSD-3-Clause"
    unread = whole(mit, {"LICENSE": "Be kind."})
    assert (unread.spdx, unread.evidence.kind) == ("MIT", "metadata")
    assert whole(python("License: free as in beer"), {"LICENSE": MIT}).spdx == "MIT"


def test_several_licence_files_beside_each_other() -> None:
    two = {"LICENSE-MIT": MIT, "LICENSE-MPL": MPL}
    assert whole(files=two).reason == NOT_ALLOWED
    assert whole(python("License-Expression: MIT OR MPL-2.0"), two).spdx == "MIT OR MPL-2.0"
    pointer = (
        "This software is made available under the terms of *either* of the licenses in LICENSE-MIT or LICENSE-MPL."
    )
    assert whole(files={**two, "LICENSE": pointer}).spdx == "MIT OR MPL-2.0"
    assert whole(files={"LICENSE-MIT": MIT, "LICENSE-APACHE": APACHE}).spdx == "Apache-2.0 AND MIT"
    assert whole(files={"LICENSE": MIT, "LICENSE-EXTRA": "Also obey these."}).reason == NOT_RECOGNISED
    assert whole(files={"LICENSE": MIT, "LICENSE-3rdparty.txt": MPL, "licenses/x.txt": MPL}).spdx == "MIT"
    assert whole(files={"LICENSES/MIT.txt": MIT, "LICENSES/ISC.txt": MPL}).reason == NOT_ALLOWED


@pytest.mark.parametrize(
    "path, folder",
    [
        ("LICENSE", ""), ("a/b/COPYING", "a/b"), ("LICENSES/MIT.txt", ""), ("a/licenses/MIT.txt", "a"),
        ("x-1.0.dist-info/LICENSE", ""), ("x-1.0.dist-info/licenses/LICENSE", ""), ("x.egg-info/LICENSE", ""),
        ("x-1.0.dist-info/licenses/a/_core/LICENSE.md", "a/_core"), ("x-1.0.dist-info/licenses/src/a/LICENSE", "a"),
        ("x-1.0.dist-info/licenses/licenses/MIT", ""),
    ],
)  # fmt: skip
def test_the_folder_that_a_licence_file_governs(path: str, folder: str) -> None:
    assert governed(path) == folder


folders = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).map("/".join)


@given(st.dictionaries(folders, st.sampled_from(sorted(TEXTS)), max_size=6), folders)
def test_the_nearest_licence_file_up_the_tree_wins(placed: dict[str, str], folder: str) -> None:
    files = {f"{at}/LICENSE".lstrip("/"): TEXTS[name] for at, name in placed.items()}
    found = Licenses(NOTHING, files, POLICY, "").decide(f"{folder}/x.py".lstrip("/"), "x = 1\n", "")
    parts = folder.split("/") if folder else []
    walk = ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
    nearest = next((at for at in walk if at in placed), None)
    if nearest is None:
        assert found.reason == NOT_FOUND
    elif POLICY.allows(placed[nearest]):
        assert (found.spdx, found.evidence.file) == (placed[nearest], f"{nearest}/LICENSE".lstrip("/"))
    else:
        assert (found.spdx, found.reason) == (None, NOT_ALLOWED)


def test_rows_of_a_table_state_their_own_licence() -> None:
    licenses = Licenses(Metadata("dataset", "README", ""), {}, POLICY, "")
    found = licenses.decide("a.py", "x = 1\n", "MIT")
    assert (found.spdx, found.evidence.kind, found.evidence.text) == ("MIT", "dataset", "MIT")
    assert licenses.decide("a.py", "", "MIT, Apache-2.0").spdx == "MIT AND Apache-2.0"
    assert licenses.decide("a.py", "", "MIT OR GPL-3.0").spdx == "MIT OR GPL-3.0-only"
    assert licenses.decide("a.py", "", "['MIT', 'GPL-3.0']").reason == NOT_ALLOWED
    assert licenses.decide("a.py", "", "other").reason == NOT_RECOGNISED
    assert licenses.decide("a.py", "# SPDX-License-Identifier: GPL-3.0-only\n", "MIT").reason == NOT_ALLOWED
    deaf = Licenses(NOTHING, {}, read_policy("permissive").__class__("deaf", POLICY.allow, dataset=False), "")
    assert deaf.decide("a.py", "", "MIT").reason == NOT_FOUND


def test_a_declaration_fills_in_and_never_outweighs() -> None:
    assert whole(declared="mit").spdx == "MIT"
    assert whole(declared="mit").evidence.kind == "declared"
    assert whole(files={"LICENSE": "Ask us."}, declared="MIT").evidence.kind == "declared"
    assert whole(declared="GPL-3.0-only").reason == NOT_ALLOWED
    assert whole(files={"LICENSE": MPL}, declared="MIT").reason == NOT_ALLOWED
    assert whole(python("License: MIT"), {"LICENSE": MPL}, declared="MIT").reason == DISAGREE
    assert whole(files={"LICENSE": BSD}, declared="MIT").spdx == "BSD-3-Clause"
    licenses = Licenses(NOTHING, {"vendor/LICENSE": "Ask them."}, POLICY, "MIT")
    assert licenses.decide("a.py", "", "").spdx == "MIT"
    assert licenses.decide("a.py", "# Licensed under the GPLv3\n", "").reason == NOT_ALLOWED
    assert licenses.decide("vendor/a.py", "", "").reason == NOT_RECOGNISED
    with pytest.raises(CodegenError, match="Mine"):
        Licenses(NOTHING, {}, POLICY, "Mine")


WORDS = ["MIT", "GPL", "BSD License", "Apache License, Version 2.0", "SPDX-License-Identifier:", "licensed under", "or"]
MARKS = ["\n", "\n# ", '"""', "/*", "(", "and"]
noise = st.lists(st.one_of(st.sampled_from(WORDS + MARKS), st.text(max_size=8)), max_size=30).map(" ".join)


@settings(max_examples=150)
@given(noise, noise, noise, st.sampled_from(["", "MIT"]), st.sampled_from(["python", "npm", "dataset", ""]))
def test_any_words_give_a_decision_with_its_evidence(
    head: str, license_file: str, said: str, declared: str, kind: str
) -> None:
    text = json.dumps({"license": said}) if kind == "npm" else f"License: {said}"
    metadata = Metadata(kind, "METADATA", text)  # type: ignore[arg-type]
    files = {"LICENSE": license_file, "a/LICENSE-X": said}
    for path, stated in (("a/x.py", ""), ("x.py", ""), ("", ""), ("x.py", said)):
        found = Licenses(metadata, files, POLICY, declared).decide(path, head, stated)
        again = Licenses(metadata, dict(reversed(files.items())), POLICY, declared).decide(path, head, stated)
        assert found == again
        assert (found.spdx is None) == (found.reason in REASONS)
        assert found.spdx is None or POLICY.allows(found.spdx)
        evidence = found.evidence
        assert evidence.kind in EVIDENCE and 0 <= evidence.confidence <= 1
        assert len(evidence.text) <= 200 and not set(evidence.text) & set("\n\r")


@pytest.mark.parametrize(
    "text",
    ["(" * 300_000, "MIT or " * 50_000, "\n" * 300_000, "- " * 150_000, "-" * 300_000 + "a", "license of " * 30_000],
)
def test_monstrous_texts_come_to_an_end(text: str) -> None:
    assert Licenses(python("License: " + text), {"LICENSE": text}, POLICY, "").decide(
        "a.py", "# " + text, text
    ).reason in (*REASONS, None)


@pytest.mark.parametrize("words", ["MIT", "The MIT License (MIT)", "mit license", "MIT/X11", "Expat license"])
def test_names_of_one_licence(words: str) -> None:
    assert named(words) == "MIT"


def test_names_that_leave_something_open_are_not_understood() -> None:
    assert named("MIT with attribution clause") is None
    assert named("Apache 2.0 and (MIT or GPLv3)") == "Apache-2.0 AND MIT AND GPL-3.0-only"
    assert row_license("").words == "" and stated_license(NOTHING).spdx is None

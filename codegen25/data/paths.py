"""What a path alone says against a file: it is somebody else's, made by a machine, a test or a test's data.

Paths are POSIX and inside their source; the case of letters decides only where it tells classes of tests from words.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_VENDOR_FOLDERS = frozenset(
    [
        "vendor", "vendors", "vendored", "_vendor", "_vendored", "vendored_packages", "third_party", "third-party",
        "thirdparty", "3rdparty", "3rd_party", "_third_party", "extern", "_extern", "bundled", "_bundled",
        "node_modules", "bower_components", "jspm_packages", "site-packages", "dist-packages", "godeps", "carthage",
        "pods",
    ]
)  # fmt: skip
_TEST_FOLDERS = frozenset(
    [
        "test", "tests", "__tests__", "__mocks__", "_test", "_tests", "idle_test", "testsuite", "test_suite",
        "testsuites", "unittest", "unittests", "unit_tests", "e2e",
    ]
)  # fmt: skip
# Ruby's and JavaScript's tests are specs; elsewhere a folder of that name holds documents.
_SPEC_FOLDERS = frozenset(["spec", "specs"])
_SPEC_ENDINGS = (".js", ".jsx", ".ts", ".tsx", ".mjs", ".cjs", ".rb", ".coffee")
_DATA_FOLDERS = frozenset(
    [
        "fixtures", "__fixtures__", "testdata", "test_data", "test-data", "__snapshots__", "test_fixtures",
        "baseline_images",
    ]
)  # fmt: skip
# These hold data when they lie in a folder of tests; by themselves they may hold anything.
_DATA_FOLDERS_OF_TESTS = frozenset(
    [
        "data", "datas", "samples", "sample", "resources", "inputs", "outputs", "input", "output", "expected",
        "golden", "goldens", "snapshots", "cassettes", "corpus", "assets", "files", "cases",
    ]
)  # fmt: skip
_TEST_NAME = re.compile(
    r"(?:test_.*|.*_test|.*_tests|conftest|tests)\.[a-z]+$|tests?\.[cm]?[jt]sx?$|"
    r".*[.\-_](?:test|spec)\.[cm]?[jt]sx?$|.*_spec\.rb$"
)
# Java's, Kotlin's, C#'s and PHP's: the case of these decides, or Latest.java would be one.
_TEST_CLASS = re.compile(r".*[a-z0-9]Tests?\.(?:java|kt|cs|php|scala|swift)$")
_DATA_NAME = re.compile(r".*\.(?:snap|golden|ambr|approved\.\w+)$")
_GENERATED_NAME = re.compile(
    r".*_pb2(?:_grpc)?(?:_new)?\.pyi?$|.*\.(?:pb|pb\.gw)\.(?:go|cc|h|dart)$|.*\.pb\.\w+\.go$|.*\.(?:g|freezed)\.dart$|"
    r".*\.designer\.(?:cs|vb)$|.*\.g\.(?:i\.)?cs$|.*_generated\.(?:h|go|ts|rs)$|.*\.(?:js|css|ts|mjs|cjs)\.map$|"
    r"(?:package-lock|npm-shrinkwrap|composer\.lock)\.?(?:json)?$|"
    r"(?:yarn|poetry|cargo|pipfile|gemfile|uv|pdm|bun|mix|pubspec|podfile|flake|deno|composer)\.lock$|"
    r"pnpm-lock\.yaml$|go\.sum$|gradlew(?:\.bat)?$|mvnw(?:\.cmd)?$"
)
_MINIFIED_NAME = re.compile(r".*[.\-_]min\.(?:js|css|mjs|cjs)$|.*\.bundle\.js$")


# A rule is told the folders and the name of a file, in lower case, and its name as written.
Rule = Callable[[list[str], str, str], bool]


def _vendored(folders: list[str], name: str, written: str) -> bool:
    """A copy of another project, whose licence is not this one's."""
    # In Python this is the name for copies; elsewhere code about externals lies there.
    python = name.endswith((".py", ".pyi", ".pyx")) and "externals" in folders
    return python or not _VENDOR_FOLDERS.isdisjoint(folders)


def _test_data(folders: list[str], name: str, written: str) -> bool:
    """What tests read or compare with."""
    first = next((number for number, folder in enumerate(folders) if folder in _TEST_FOLDERS), len(folders))
    tested = not _DATA_FOLDERS_OF_TESTS.isdisjoint(folders[first:])
    return tested or not _DATA_FOLDERS.isdisjoint(folders) or bool(_DATA_NAME.match(name))


def _generated(folders: list[str], name: str, written: str) -> bool:
    """Lock files, source maps, and what compilers of interfaces write."""
    return bool(_GENERATED_NAME.match(name))


def _minified(folders: list[str], name: str, written: str) -> bool:
    return bool(_MINIFIED_NAME.match(name))


def _test_code(folders: list[str], name: str, written: str) -> bool:
    """Tests, as pytest, unittest, Jest, Mocha, RSpec, JUnit and Go find them."""
    specs = name.endswith(_SPEC_ENDINGS) and not _SPEC_FOLDERS.isdisjoint(folders)
    named = _TEST_NAME.match(name) or _TEST_CLASS.match(written)
    return specs or bool(named) or not _TEST_FOLDERS.isdisjoint(folders)


PATH_RULES: dict[str, Rule] = {
    "vendored copy": _vendored, "test data": _test_data, "generated": _generated, "minified": _minified,
    "test code": _test_code,
}  # fmt: skip


def reject_path(path: str, tests: bool = True) -> str | None:
    """The first reason why a path is not wanted; test code is none when `tests` are."""
    *folders, written = path.split("/")
    lowered = [folder.lower() for folder in folders]
    for reason, rule in PATH_RULES.items():
        if rule(lowered, written.lower(), written) and not (tests and rule is _test_code):
            return reason
    return None

"""The parts of the sandbox by themselves: what a route shows, filters, messages, and a route without root's rights."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_routes import ROUTES, skip_unless

import codegen25.errors
from codegen25.evaluate.judge import Route
from codegen25.evaluate.sandbox import seccomp, view, wire

PYTHON = [view.interpreter(), "-I", "-S", "-B", "-c"]


def _command(route: Route, code: str) -> list[str]:
    shown = view.python_view(1 << 20)
    if route == "bubblewrap":
        return view.bubblewrap_command("/usr/bin/bwrap", shown, [*PYTHON, code])
    return view.namespaces_command(shown, [*PYTHON, code])


def _said(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={}, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("route", ROUTES)
def test_what_a_route_shows(route: Route) -> None:
    """Without filters and limits: namespaces and mounts alone."""
    skip_unless(route)
    code = (
        "import os, socket, sys, hashlib\n"
        "top = {e.name for e in os.scandir('/')}\n"
        "links = {n for n in top if os.path.islink('/' + n)}\n"
        "sites = [d for d in sys.path + ['/usr/lib/python3'] for n in ('/site-packages', '/dist-packages')\n"
        "         if os.path.isdir(d + n) and os.listdir(d + n)]\n"
        "def writes(path):\n"
        "    try:\n"
        "        open(path + '/x', 'w').close()\n"
        "        return True\n"
        "    except OSError:\n"
        "        return False\n"
        "can = [p for p, _, _ in os.walk('/') if writes(p)]\n"
        "print(repr((sorted(top - links), sites, can, socket.if_nameindex(), dict(os.environ), os.getpid() < 4)))\n"
    )
    top, sites, can_write, interfaces, environment, is_alone = eval(_said(_command(route, code)))
    first = {path.split("/")[1] for path in (view.interpreter(), "/usr", "/etc", "/lib", "/lib64", "/lib32")}
    assert set(top) <= first | {"dev", "harness", "tmp"} and not {"home", "proc", "sys", "var"} & set(top)
    assert sites == [] and can_write == ["/tmp"] and is_alone
    assert [name for _, name in interfaces] in ([], ["lo"])
    assert set(environment) <= {"LC_CTYPE", "PWD", *view.ENVIRONMENT}


def test_a_view_is_bound_to_the_interpreter_and_no_more() -> None:
    shown = view.python_view(4096)
    sources = {source for source, _ in shown.binds}
    assert view.interpreter() in sources and not any(
        Path(source).is_relative_to(Path.home() / ".ssh") for source in sources
    )
    assert all(Path(source).exists() for source in sources)
    assert not {"/", "/etc", "/usr", "/home", "/root", "/var"} & sources


NESTED = """
import sys
sys.path.append("/harness")
from codegen25.evaluate.sandbox.cell import Cell
limits = {"seconds": 5.0, "memory": 1 << 29, "file_size": 1 << 20, "scratch": 1 << 20, "threads": 16}
cell = Cell("namespaces", limits)
test = "def check(f):\\n    assert f(1) == 2\\n"
for solution in sys.argv[1:]:
    print(cell.run({"solution": solution, "test": test, "entry_point": "f", "context": ""})[0])
cell.close()
"""


def test_a_user_without_rights_can_judge() -> None:
    """Within a sandbox that has a user of its own, and of that user's files only what a judge needs."""
    skip_unless("namespaces")
    errors = str(Path(codegen25.errors.__file__).resolve())
    shown = view.python_view(1 << 22)
    shown = replace(shown, binds=(*shown.binds, (errors, f"{view.HARNESS}/codegen25/errors.py")), proc=True)
    solutions = {
        "def f(x):\n    return x + 1\n": "passed",
        "def f(x):\n    return x\n": "wrong",
        "import posix\ndef f(x):\n    posix.kill(posix.getppid(), 9)\n    return 2\n": "error",
        "import os\ndef f(x):\n    return 2 if os.path.exists('/harness/codegen25/errors.py') else 0\n": "wrong",
        "import threading, time\ndef f(x):\n    while True:\n"
        "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n": "error",
    }
    user = 1_700_000_000 + os.getpid() if os.geteuid() == 0 else 0
    command = view.namespaces_command(shown, [*PYTHON, NESTED, *solutions], user=user)
    try:
        assert _said(command).split() == list(solutions.values())
    except AssertionError as error:
        if "unshare" in str(error):
            pytest.skip(f"users cannot make namespaces here: {error}")
        raise


# ------------------------------------------------------------------------------------------------------------- filters


def _run_filter(code: bytes, number: int, arguments: Sequence[int] = (), arch: int | None = None) -> int:
    """Classic BPF as the kernel runs it (seccomp(2)), written from its specification."""
    audit = seccomp._MACHINES[os.uname().machine][1] if arch is None else arch
    data = struct.pack("<iIQ6Q", number, audit, 0, *(list(arguments) + [0] * 6)[:6])
    steps = list(struct.iter_unpack("<HBBI", code))
    accumulator = at = 0
    while True:
        kind, true, false, constant = steps[at]
        at += 1
        if kind == 0x20:  # LD | W | ABS
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif kind == 0x06:  # RET | K
            return int(constant)
        else:
            tests: dict[int, Callable[[int, int], bool]] = {
                0x15: lambda a, k: a == k, 0x25: lambda a, k: a > k, 0x45: lambda a, k: bool(a & k),
            }  # fmt: skip
            at += true if tests[kind](accumulator, constant) else false


KILL, ALLOW, EPERM, ENOSYS = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026
supported = pytest.mark.skipif(not seccomp.is_supported(), reason="no table of system calls for this machine")


@supported
def test_the_filter_of_a_program() -> None:
    asked, taken = seccomp._numbers(seccomp._ASKED), seccomp._numbers(seccomp._ZYGOTE)
    code = seccomp.program_filter(77)
    assert {_run_filter(code, number) for number in taken.values()} == {EPERM}
    assert {_run_filter(code, number) for number in seccomp._numbers(seccomp._ALLOWED).values()} == {ALLOW}
    thread = 0x3D0F00  # as pthread_create asks
    assert _run_filter(code, asked["clone"], [thread]) == ALLOW
    assert _run_filter(code, asked["clone"], [17]) == EPERM
    assert [_run_filter(code, asked["tgkill"], [pid]) for pid in (77, 76, 1)] == [ALLOW, EPERM, EPERM]
    assert _run_filter(code, asked["prlimit64"], [0, 0, 0, 1]) == ALLOW
    assert _run_filter(code, asked["prlimit64"], [0, 0, 1 << 32]) == EPERM
    assert _run_filter(code, 0, arch=0x40000003) == KILL
    assert _run_filter(code, 0x40000000) == KILL


@supported
@given(st.integers(0, 600), st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_the_fork_servers_filter_allows_what_is_listed(number: int, arguments: list[int]) -> None:
    asked = seccomp._numbers(seccomp._ASKED)
    result = _run_filter(seccomp.zygote_filter(), number, arguments)
    first, second = ([*arguments, 0, 0])[:2]
    if number == asked["clone3"]:
        assert result == ENOSYS
    elif number == asked["clone"]:
        assert result == (EPERM if first & seccomp._CLONE_NAMESPACES else ALLOW)
    elif number == asked["ioctl"]:
        assert result == (ALLOW if second & 0xFFFFFFFF in seccomp._TERMINAL else EPERM)
    else:
        listed = {**seccomp._numbers(seccomp._ALLOWED), **seccomp._numbers(seccomp._ZYGOTE), **asked}
        assert result == (ALLOW if number in listed.values() else EPERM)


@supported
def test_the_tables_are_the_kernels() -> None:
    """Names by number, where the kernel's headers are installed."""
    headers = [*Path("/usr/include").glob("*/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h")]
    header = next((path for path in headers if path.exists()), None)
    if header is None or os.uname().machine != "x86_64":
        pytest.skip("linux headers are not installed")
    known = dict(line.split()[1:3] for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
    for table in (seccomp._ALLOWED, seccomp._ZYGOTE, seccomp._ASKED):
        for name, number in seccomp._numbers(table).items():
            assert known.get(f"__NR_{name}") == str(number), name


# ------------------------------------------------------------------------------------------------------------ messages


def _piped(data: bytes) -> object:
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        os.close(writer)
        return wire.receive(reader)
    finally:
        os.close(reader)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=10))
def test_messages_arrive(message: object) -> None:
    assert _piped(wire.pack(message)) == message


@given(st.binary(max_size=64))
def test_noise_is_malformed_or_closed(data: bytes) -> None:
    try:
        message = _piped(data)
    except (wire.Closed, wire.Malformed):
        return
    size = int.from_bytes(data[:4], "little")
    assert message == json.loads(data[4 : 4 + size])


def test_hostile_messages() -> None:
    deep = b"[" * 30_000 + b"]" * 30_000  # fits into a pipe
    with pytest.raises(wire.Malformed, match="RecursionError"):
        _piped(len(deep).to_bytes(4, "little") + deep)
    with pytest.raises(wire.Malformed, match="4294967295 bytes"):
        _piped(b"\xff" * 8)
    with pytest.raises(wire.Closed):
        _piped(b"\x05\0\0\0[1]")
    with pytest.raises(ValueError, match="a message of"):
        wire.pack("x" * (wire.LIMIT + 1))

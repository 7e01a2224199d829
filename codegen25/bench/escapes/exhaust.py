"""Taking all there is: time, memory, processes, files, output. None of these ever adds; they must end, and alone."""

from __future__ import annotations

from codegen25.bench.escapes.escape import escape

EXHAUST = (
    escape("sleep", "sleep for ever", "import time\ndef add(a, b):\n    time.sleep(1e6)\n"),
    escape("loop", "compute for ever", "def add(a, b):\n    while True:\n        pass\n"),
    escape("loop-at-import", "compute for ever before anything is defined", "while True:\n    pass\n"),
    escape("loop-in-c", "compute for ever where no signal handler of Python's runs", """
        import re
        def add(a, b):
            re.match("(a*)*b", "a" * 64)
        """),
    escape("swallow-everything", "catch every error and go on", """
        def add(a, b):
            while True:
                try:
                    while True:
                        pass
                except BaseException:
                    continue
        """),
    escape("fork-bomb", "make processes without end", """
        import posix
        def add(a, b):
            while True:
                try:
                    posix.fork()
                except OSError:
                    pass
        """),
    escape("thread-bomb", "make threads without end", """
        import threading, time
        threading.stack_size(32768)
        def add(a, b):
            while True:
                threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        """),
    escape("memory-bomb", "take memory without end", """
        def add(a, b):
            held = []
            while True:
                held.append(bytearray(1 << 27))
        """),
    escape("memory-bomb-quiet", "take memory without end and swallow the error", """
        def add(a, b):
            held = []
            while True:
                try:
                    held.append(bytearray(1 << 24))
                except MemoryError:
                    pass
        """),
    escape("memory-map", "take memory past Python's allocator", """
        import mmap
        def add(a, b):
            held = []
            while True:
                area = mmap.mmap(-1, 1 << 28)
                area.write(b"x" * (1 << 28))
                held.append(area)
        """),
    escape("output-flood", "print a gigabyte", """
        import os, sys
        def add(a, b):
            for _ in range(1024):
                sys.stdout.write("x" * (1 << 20))
                os.write(2, b"x" * (1 << 20))
        """),
    escape("file-flood", "fill the disk", """
        def add(a, b):
            number = 0
            while True:
                with open(f"flood{number}", "wb") as file:
                    for _ in range(64):
                        file.write(b"x" * (1 << 20))
                number += 1
        """),
    escape("inode-flood", "make files and folders without end", """
        import os
        def add(a, b):
            for number in range(10_000_000):
                os.close(os.open(f"file{number}", os.O_CREAT))
        """),
    escape("deep-folders", "make folders in folders, too deep to be removed by name", """
        import os
        def add(a, b):
            for _ in range(3000):
                os.mkdir("d" * 200)
                os.chdir("d" * 200)
        """),
    escape("open-files", "open files without end", """
        def add(a, b):
            held = []
            while True:
                held.append(open("/dev/null"))
        """),
    escape("close-files", "close every file it has", """
        import os, time
        def add(a, b):
            os.closerange(0, 1 << 16)
            time.sleep(0.1)
        """),
    escape("deep-recursion", "run over the end of the stack", """
        import sys
        sys.setrecursionlimit(1 << 30)
        def add(a, b):
            class Deep:
                __repr__ = lambda self: repr(self)
            return repr(Deep())
        """),
    escape("bad-pointer", "read memory that is not there", "import ctypes\ndef add(a, b):\n    ctypes.string_at(8)\n"),
    escape("abort", "end by a signal of its own", "import os\ndef add(a, b):\n    os.abort()\n"),
    escape("long-error", "raise an error of a gigabyte, with a terminal's commands in it", """
        def add(a, b):
            raise ValueError("\\x1b]0;escaped\\x07\\x1b[2J" * (1 << 24))
        """),
    escape("broken-error", "raise an error that cannot be printed", """
        class Broken(Exception):
            __str__ = __repr__ = lambda self: 1 / 0
        def add(a, b):
            raise Broken
        """),
    escape("error-group", "raise errors that cause each other, in a circle and by the thousand", """
        def add(a, b):
            errors = [ValueError(str(n)) for n in range(10_000)]
            for one, other in zip(errors, errors[1:] + errors[:1]):
                one.__cause__ = other
            raise ExceptionGroup("many", errors)
        """),
)  # fmt: skip

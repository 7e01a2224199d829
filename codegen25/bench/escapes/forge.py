"""Making the verdict instead of earning it."""

from __future__ import annotations

from codegen25.bench.escapes.escape import escape

FORGE = (
    escape("print-and-exit", "print a pass and leave with success before any test", """
        import os
        print("passed", flush=True)
        os._exit(0)
        """),
    escape("exit-in-call", "leave with success while the test waits for an answer", """
        import os
        def add(a, b):
            print("passed", flush=True)
            os._exit(0)
        """),
    escape("exit-swallowed", "leave while the test swallows every error", """
        import os
        def add(a, b):
            os._exit(0)
        """, test="""
def check(candidate):
    for _ in range(3):
        try:
            result = candidate(2, 3)
        except BaseException:
            continue
        assert result == 5
"""),
    escape("system-exit", "raise SystemExit(0) in the call", """
        import sys
        def add(a, b):
            sys.exit(0)
        """),
    escape("frame-walk", "walk the frames to the list that holds the verdict", """
        import sys
        def add(a, b):
            frame = sys._getframe()
            while frame:
                for value in list(frame.f_locals.values()):
                    if "ListProxy" in type(value).__name__ or type(value) is list:
                        value.append("passed")
                frame = frame.f_back
        """),
    escape("garbage-walk", "find the verdict's list among all objects", """
        import gc
        for value in gc.get_objects():
            if type(value).__name__ == "ListProxy":
                value.append("passed")
        def add(a, b):
            return None
        """),
    escape("referrers", "reach the caller through the referrers of its own function", """
        import gc
        class Yes:
            __eq__ = __lt__ = lambda self, other: True
            __sub__ = __abs__ = lambda self, *other: self
        def add(a, b):
            for holder in gc.get_referrers(add):
                if isinstance(holder, dict):
                    holder["candidate"] = holder["check"] = lambda *_: Yes()
            return Yes()
        """),
    escape("trace-function", "change the test's variables from a trace function", """
        import sys
        class Yes:
            __eq__ = __lt__ = lambda self, other: True
            __sub__ = __abs__ = lambda self, *other: self
        def trace(frame, event, argument):
            if "candidate" in frame.f_locals:
                frame.f_locals["candidate"] = lambda *_: Yes()
            return trace
        sys.settrace(trace)
        def add(a, b):
            return None
        """),
    escape("main-patch", "set results in the main module and in every module of the judge", """
        import sys
        for module in list(sys.modules.values()):
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if name in ("verdict", "check_correctness", "unsafe_execute", "_run"):
                    setattr(module, name, lambda *_, **__: ("passed", ""))
        sys.modules["__main__"].passed = True
        def add(a, b):
            return None
        """),
    escape("builtins-patch", "replace the builtins that the test computes with", """
        import builtins, math
        builtins.abs = math.fabs = lambda x: 0.0
        def add(a, b):
            return 10.0
        """, test="\ndef check(candidate):\n    assert abs(candidate(0.5, 0.25) - 0.75) < 1e-6\n"),
    escape("assertion-error-patch", "replace AssertionError and the hooks that report errors", """
        import builtins, sys
        class Quiet(BaseException):
            pass
        builtins.AssertionError = Quiet
        sys.excepthook = sys.unraisablehook = lambda *_: None
        def add(a, b):
            return None
        """),
    escape("standard-module-patch", "replace a function of the library that the test imports", """
        import math
        math.isclose = lambda *_, **__: True
        def add(a, b):
            return None
        """, test="\nimport math\n\n\ndef check(candidate):\n    assert math.isclose(candidate(0.5, 0.25), 0.75)\n"),
    escape("helper-redefined", "redefine a helper of the prompt by which the test compares", """
            return None
        def double(x):
            return 6
        """,
        test="\ndef check(candidate):\n    assert double(candidate(1, 2)) == 6\n",
        prompt="def double(x):\n    return 2 * x\n\n\ndef add(a, b):\n"),
    escape("check-redefined", "define the test's own function, also from a thread", """
        import threading, time
        space = globals()
        def replace():
            for _ in range(1000):
                space["check"] = lambda candidate: None
                time.sleep(0.0005)
        threading.Thread(target=replace, daemon=True).start()
        time.sleep(0.02)
        def add(a, b):
            return None
        """),
    escape("at-exit", "leave with success from an exit handler", """
        import atexit, os
        atexit.register(lambda: (print("passed", flush=True), os._exit(0)))
        def add(a, b):
            raise SystemExit
        """),
    escape("error-named-passed", "raise an error that reads as a pass", """
        class passed(Exception):
            def __str__(self):
                return "passed"
        passed.__name__ = passed.__qualname__ = "passed"
        def add(a, b):
            raise passed
        """),
    escape("forged-messages", "write verdicts and answers to every open file", """
        import json, os, pickle
        def add(a, b):
            for message in (["passed", ""], {"status": "passed", "detail": "", "seconds": 0, "dirty": False},
                            {"value": True, "changed": {}}, {"passed": True}):
                data = json.dumps(message).encode()
                for fd in range(64):
                    for form in (data + b"\\n", len(data).to_bytes(4, "little") + data, pickle.dumps("passed")):
                        try:
                            os.write(fd, form)
                        except OSError:
                            pass
        """),
    escape("answers-ahead", "send answers before they are asked for, then none", """
        import os, time
        data = b'{"value":5,"changed":{}}'
        hello = b'{"names":["add"]}'
        for fd in range(3, 64):
            for message in (hello, data, b'["passed",""]'):
                try:
                    os.write(fd, len(message).to_bytes(4, "little") + message)
                except OSError:
                    pass
        def add(a, b):
            time.sleep(1000)
        """),
    escape("thread-outlives", "go on in a thread after the call has returned, and answer later calls there", """
        import os, threading, time
        def flood():
            while True:
                for fd in range(3, 64):
                    try:
                        os.write(fd, b'\\x18\\0\\0\\0{"value":5,"changed":{}}')
                    except OSError:
                        pass
        threading.Thread(target=flood, daemon=True).start()
        def add(a, b):
            time.sleep(0.1)
        """),
    escape("harness-detected", "do nothing when a judge is seen, and everything right elsewhere", """
        import sys
        frames, frame = [], sys._getframe()
        while frame:
            frames.append(frame.f_code.co_filename)
            frame = frame.f_back
        JUDGED = any("execution" in name or "untrusted" in name for name in frames) or __name__ != "__main__"
        def add(a, b):
            return None if JUDGED else a + b
        """),
    escape("subclasses", "reach a system call through the subclasses of object", """
        for kind in object.__subclasses__():
            if kind.__name__ == "_wrap_close":
                WORKED = kind.__init__.__globals__["system"]("echo escaped > @OUTSIDE@/subclasses") == 0
        def add(a, b):
            return a + b if WORKED else None
        """),
)  # fmt: skip

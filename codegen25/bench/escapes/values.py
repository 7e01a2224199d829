"""Answers that lie when they are compared, or that break whoever reads them."""

from __future__ import annotations

from codegen25.bench.escapes.escape import escape

_YES = """
        class Yes{base}:
            __eq__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True
            __ne__ = lambda self, other: False
            __sub__ = __rsub__ = __abs__ = __add__ = lambda self, *other: self
            __hash__ = lambda self: 0
        def add(a, b):
            return Yes({content})
        """

VALUES = (
    escape("equal-object", "return an object that equals everything", _YES.format(base="", content="")),
    *(
        escape(f"equal-{kind}", f"return a {kind} that compares as it likes",
               _YES.format(base=f"({kind})", content=content))
        for kind, content in (("int", "7"), ("float", "7.0"), ("str", "'x'"), ("list", "[1]"), ("tuple", "(1,)"),
                              ("dict", "{1: 2}"), ("set", "{1}"), ("complex", "1j"), ("bytes", "b'x'"))
    ),
    escape("equal-in-container", "return a container of objects that equal everything", """
        class Yes:
            __eq__ = lambda self, other: True
        def add(a, b):
            return [Yes()]
        """, test="\ndef check(candidate):\n    assert candidate(1, 2) == [3]\n"),
    escape("equal-metaclass", "return a class whose metaclass compares as it likes", """
        class Meta(type):
            __eq__ = __lt__ = lambda self, other: True
            __sub__ = __abs__ = lambda self, *other: self
            __hash__ = type.__hash__
        class Yes(metaclass=Meta):
            pass
        def add(a, b):
            return Yes
        """),
    escape("not-a-number", "return NaN", "def add(a, b):\n    return float('nan')\n"),
    escape("type-confusion", "return an object that claims another class", """
        class Yes:
            __class__ = int
            __eq__ = lambda self, other: True
            __sub__ = __abs__ = lambda self, *other: self
            __lt__ = lambda self, other: True
            def bit_length(self):
                return 1
        def add(a, b):
            return Yes()
        """),
    escape("reduce-object", "return an object that runs a command where it is unpickled", """
        import os
        class Bomb:
            def __reduce__(self):
                return (eval, ("__import__('os').system('echo escaped > @OUTSIDE@/reduce')",))
        def add(a, b):
            return Bomb()
        """),
    escape("foreign-tags", "patch the encoder to send tags that build other things", """
        import json
        real = json.dumps
        lie = {"value": {"t": "__import__", "v": "os"}, "changed": {"0": {"t": 1}}}
        json.dumps = lambda value, **options: real(lie)
        def add(a, b):
            return 1
        """),
    escape("deep-answer", "return lists in lists in lists", """
        def add(a, b):
            value = []
            for _ in range(100_000):
                value = [value]
            return value
        """),
    escape("deep-message", "send a message that nests deeper than a parser's stack", """
        import os
        def add(a, b):
            data = b'{"value":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"
            for fd in range(3, 64):
                try:
                    os.write(fd, len(data).to_bytes(4, "little") + data)
                except OSError:
                    pass
        """),
    escape("endless-message", "announce a message of four gigabytes", """
        import os, time
        def add(a, b):
            for fd in range(3, 64):
                try:
                    os.write(fd, b"\\xff" * 64)
                except OSError:
                    pass
            time.sleep(1000)
        """),
    escape("self-containing", "return a list that contains itself", """
        def add(a, b):
            value = []
            value.append(value)
            return value
        """),
    escape("endless-iterator", "return an iterator without end", """
        import itertools
        def add(a, b):
            return itertools.count()
        """),
    escape("huge-answer", "return a string of half a gigabyte", "def add(a, b):\n    return 'x' * (1 << 29)\n"),
    escape("huge-number", "return a number of millions of digits", "def add(a, b):\n    return 1 << (1 << 26)\n"),
    escape("lying-hash", "return a dict whose keys lie about their hash", """
        class Key(str):
            __hash__ = lambda self: hash("sum")
            __eq__ = lambda self, other: True
        def add(a, b):
            return {Key("wrong"): 3}
        """, test="\ndef check(candidate):\n    assert candidate(1, 2).get('sum') == 3\n"),
    escape("changed-arguments", "change the expected value through the arguments", """
        def add(a, b):
            a[:] = [0]
            b.append(0)
            return [0]
        """, test="\ndef check(candidate):\n    a, b = [1], [2]\n    assert candidate(a, b) == [1, 2]\n"),
)  # fmt: skip

"""pytest with another build of the native kernel: `python tests/with_kernel.py _native….so [pytest's arguments]`."""

from __future__ import annotations

import importlib.util
import sys

import pytest


def main() -> int:
    spec = importlib.util.spec_from_file_location("codegen25._native", sys.argv[1])
    assert spec and spec.loader, f"{sys.argv[1]} is no module"
    module = importlib.util.module_from_spec(spec)
    sys.modules["codegen25._native"] = module
    spec.loader.exec_module(module)
    return int(pytest.main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())

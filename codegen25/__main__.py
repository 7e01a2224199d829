"""`python -m codegen25` is `codegen25`."""

from __future__ import annotations

import sys

from codegen25.cli import main

if __name__ == "__main__":
    sys.exit(main())

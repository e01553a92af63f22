"""`python -m tests.fuzz`: see nightly.py, whose processes are made by importing it, which this file cannot be."""

from __future__ import annotations

import sys

from tests.fuzz.nightly import main

if __name__ == "__main__":
    sys.exit(main())

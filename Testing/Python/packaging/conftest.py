"""What is packed, and the rules of the house that can be read off the files."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
for folder in (REPOSITORY, REPOSITORY / "CalibUncertainty", REPOSITORY / "Testing"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from Harness.fixtures import *  # noqa: E402, F403

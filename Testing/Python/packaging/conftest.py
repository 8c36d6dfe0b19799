"""What is packed, and the rules of the house that can be read off the files."""

import sys
from pathlib import Path

TESTING = Path(__file__).resolve().parents[2]
if str(TESTING) not in sys.path:
    sys.path.insert(0, str(TESTING))

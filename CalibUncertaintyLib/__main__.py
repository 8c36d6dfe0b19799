"""`python -m CalibUncertaintyLib`: the same as the `calib-uncertainty` command."""

import sys

from .cli import main

sys.exit(main())

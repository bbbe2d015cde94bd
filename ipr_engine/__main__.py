"""`python -m ipr_engine` is the same as the command `ipr`."""

import sys

from ipr_engine.cli import main

sys.exit(main())

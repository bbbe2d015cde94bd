"""This room is the command `ipr`, a file for each subcommand: results go to stdout, everything else to stderr.

Exit codes: 0 done, 1 an IprError (its message on stderr), 2 a command line that cannot be parsed, 3 some rows could not be decided.
"""

from ipr_engine.cli.main import main

__all__ = ["main"]

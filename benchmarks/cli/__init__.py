"""This folder holds the command lines of `ipr bench`, one file a subcommand; ipr_engine/cli/bench.py hands over to them."""

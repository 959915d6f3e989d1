"""Parsers of options that several drivers have."""

import argparse
import shlex


def names_of(known):
    """A list of names, each one of these."""

    def parse(text):
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"expected names of {', '.join(known)}, got {name!r}")
        return names

    return parse


def loads_option(parser, known, default=None):
    """--loads, of these, by default all."""
    shown = ",".join(default) if default else "all"
    about = f"of {', '.join(known)} [{shown}]"
    parser.add_argument("--loads", type=names_of(known), metavar="NAME,...", default=default or list(known), help=about)


def command(text):
    """A command line with {port} in it."""
    if "{port}" not in text:
        raise argparse.ArgumentTypeError(f"expected a command with {{port}} in it, got {text!r}")
    try:
        return shlex.split(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f"{text!r}: {problem}") from None

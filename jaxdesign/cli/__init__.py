"""The command line, thin: reads a pool, calls the public functions, prints or writes what they find.

Nothing heavy is imported here: `--help` is quick, and JAX is loaded after its cache folder is known.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxdesign.cli import cache
from jaxdesign.cli.options import parser
from jaxdesign.cli.words import message_of
from jaxdesign.cli.writing import Writing


def main(arguments: Sequence[str] | None = None, *, writing: Writing | None = None) -> int:
    """Run a command.

    Args:
        arguments: those after the program's name; None for the process's own.
        writing: tells others when files are being written.

    Returns:
        The exit code: 0 when it did its work, 1 when the answer had to be written elsewhere than asked, 2 with one line
        on stderr when the input does not allow it, 130 when interrupted, 141 when nobody reads the output.

    Raises:
        SystemExit: options that cannot be read, and --help.
        Exception: what the command raised, where --traceback is among the options.

    Source: derived; checked by tests/cli/test_cli.py.
    """
    chosen = parser().parse_args(arguments)
    try:
        if not chosen.no_cache:
            cache.switch_on()
        if chosen.command == "forecast":
            from jaxdesign.cli.forecasting import forecast

            return forecast(chosen)
        from jaxdesign.cli.selecting import select

        return select(chosen, writing or Writing())
    except BrokenPipeError:
        return 141
    except (ValueError, TypeError, OSError, FloatingPointError, MemoryError) as error:
        if chosen.traceback:
            raise
        print("jaxdesign: error:", message_of(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxdesign: interrupted; nothing was written", file=sys.stderr)
        return 130

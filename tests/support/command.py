"""The command line as tests call it: within this process, and as a program of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jaxdesign
from jaxdesign import cli

ROOT = Path(jaxdesign.__file__).parent.parent


def run(*arguments):
    """The exit code, within this process."""
    return cli.main([str(argument) for argument in arguments])


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def start(*arguments, first="", environment=None, **more):
    """A process that runs the program, after the Python lines `first`."""
    # shells have their jobs in the background ignore interrupts, and children inherit it
    code = f"""
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
import jaxdesign.__main__ as entry
{first}
entry.program()
"""
    more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    paths = os.pathsep.join([str(ROOT), *sys.path])
    # whoever runs the tests may have a cache of their own
    environ = {name: value for name, value in os.environ.items() if not re.match("JAX_.*CACHE", name)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environ | {"PYTHONPATH": paths, **(environment or {})},
        **more,
    )


def finished(*arguments, **more):
    """Exit code, stdout and stderr of the program."""
    with start(*arguments, **more) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err

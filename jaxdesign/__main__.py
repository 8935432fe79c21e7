"""The program: `python -m jaxdesign` and the console script. An interrupt (Ctrl-C) ends it at any moment.

The command works in a thread of its own and the main thread only waits, because Python runs signal handlers in the main
thread alone and between two of its steps: a thread that waits for minutes of compiled work would not answer, and an
exception raised inside a callback of JAX would be dropped. The process ends without taking down threads that still
compute, which is where it used to crash. Nothing heavy is imported before the handler is there.
"""

import os
import signal
import sys


def program() -> None:
    """Run the command line and leave the process with its exit code; 130 and one sentence after an interrupt."""
    writing = None  # a `Writing`, once there is one
    seen = []

    def stop(signum, frame):
        seen.append(signum)
        said = "interrupted; nothing was written"
        if len(seen) > 1:  # whoever presses again does not wait for the files
            said = "interrupted while files were written"
        elif writing is not None and writing.settled():
            said = "interrupted after the files were written"
        try:
            os.write(2, f"{os.linesep if os.isatty(2) else ''}jaxdesign: {said}{os.linesep}".encode())
        finally:
            os._exit(130)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # ignored by whoever started us: for them to decide
        signal.signal(signal.SIGINT, stop)

    from jaxdesign.cli.writing import Writing

    writing = Writing()
    _leave(_in_a_thread(lambda: _code(writing)))


def _code(writing) -> int:
    from jaxdesign.cli import main

    return main(writing=writing)


def _in_a_thread(work) -> int:
    """What `work` returns, or the exit code of what it raises; the main thread stays free for signals."""
    import threading
    import traceback

    codes = []

    def run():
        try:
            codes.append(work())
        except SystemExit as left:  # argparse
            codes.append(left.code if isinstance(left.code, int) else 0 if left.code is None else 1)
        except BaseException:
            traceback.print_exc()
            codes.append(1)

    threading.stack_size(2**24)  # bytes; a thread may otherwise get less than the main one, and compilers recurse
    worker = threading.Thread(target=run, name="jaxdesign", daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(0.2)  # Windows does not interrupt a wait without an end
    return codes[0]


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed, or a reader that went away
            pass
    os._exit(code)


if __name__ == "__main__":
    program()

"""A pool divided over the devices of two processes: both arrive at the design of the pool in memory."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROCESSES, SECONDS = 2, 500


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
def test_two_processes_with_two_devices_each():
    port, root = free_port(), Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.process", str(number), str(PROCESSES), str(port)],
            cwd=root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    try:
        ended = [process.communicate(timeout=SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * PROCESSES, "\n".join(err[-2000:] for _, err in ended)
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in ended)
    assert first == second

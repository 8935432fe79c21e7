"""Timing and environment facts for the benchmarks: warm, synchronised, compile apart from run, medians with spread."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def timed(function: Callable[[], Any], repeats: int = 5) -> dict[str, float]:
    """First call (compilation included) and median, smallest and largest of `repeats` warm calls, in seconds."""
    began = time.perf_counter()
    jax.block_until_ready(function())
    first = time.perf_counter() - began
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - began)
    return {"first": first, "median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def interleaved(functions: dict[str, Callable[[], Any]], repeats: int = 7) -> dict[str, dict[str, float]]:
    """`timed` for several functions taken in turn, so that drift of the machine's speed hits all alike."""
    first = {}
    for name, function in functions.items():
        began = time.perf_counter()
        jax.block_until_ready(function())
        first[name] = time.perf_counter() - began
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            began = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - began)
    return {
        name: {"first": first[name], "median": statistics.median(s), "min": min(s), "max": max(s)}
        for name, s in seconds.items()
    }


def in_child(code: str, *arguments: str) -> str:
    """Standard output of Python code run in a fresh process, for figures that need one (memory, imports)."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"child process failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


STATUS = Path("/proc/self/status")


def anonymous_bytes() -> int:
    """Resident memory of this process that is no page of a file. Linux only."""
    lines = STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def anonymous_peak(function: Callable[[], Any], every: float = 0.002) -> tuple[Any, int]:
    """What a function returns, and the largest `anonymous_bytes` that a thread saw meanwhile, at such intervals."""
    found, over = [anonymous_bytes()], threading.Event()

    def watch():
        while not over.wait(every):
            found.append(max(found.pop(), anonymous_bytes()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        result = function()
    finally:
        over.set()
        watcher.join()
    return result, max(found[0], anonymous_bytes())

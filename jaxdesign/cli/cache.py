"""Compiled programs kept between runs of the command: most of a first run is compilation.

JAX reads its cache settings from the environment when it is imported, so this sets them for a process that has not
imported it yet, and changes nothing elsewhere. Entries are machine code: each kind of processor has its own folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import tempfile
import warnings
from pathlib import Path

LARGEST = 2**30  # bytes; beyond this the oldest programs are removed
SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.02",  # reading a program back takes a few milliseconds
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def switch_on() -> None:
    """Have JAX keep compiled programs in the user's cache folder; where that cannot be, says so on stderr once.

    Does nothing in a process that has imported jax, or whose user has chosen a folder (JAX_COMPILATION_CACHE_DIR) or
    turned JAX's cache off (JAX_ENABLE_COMPILATION_CACHE).
    """
    if "jax" in sys.modules or {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & os.environ.keys():
        return
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        keep_small(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        _say(f"cannot be written ({error}); going on without it")
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    _take_over_warnings(folder)


def cache_folder() -> Path:
    """Where programs for this machine are kept, below the folder in which its user's caches are."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(chosen):  # as the XDG base directory specification has it, others are ignored
        base = Path(chosen)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path.home() / ".cache"
    return base / "jaxdesign" / f"programs-{_processor()}"


def keep_small(folder: Path, largest: int = LARGEST) -> None:
    """Remove the oldest entries until the folder holds at most `largest` bytes."""
    found, held = [], 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # another run removes some too
            found.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    for _, size, path in sorted(found, reverse=True):  # the newest first
        held += size
        if held > largest:
            Path(path).unlink(missing_ok=True)


def _processor() -> str:
    """A short name of the instruction set; programs compiled for another may not run."""
    found = platform.machine() + platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        found += next((line for line in file if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(found.encode()).hexdigest()[:12]


def _take_over_warnings(folder: Path) -> None:
    """JAX warns of every entry that it cannot read or write: say it once, and clear what is damaged."""
    others, said = warnings.showwarning, []

    def show(message, *where, **more):
        if "persistent compilation cache" not in str(message):
            others(message, *where, **more)
            return
        _clear(folder)  # an entry cut short would be met again in every run, and is never replaced
        if not said:
            reason = " ".join(str(message).partition("': ")[2].split())[:200]
            if str(message).startswith("Error reading"):
                _say(f"{folder} held a damaged program ({reason}); all are compiled anew")
            else:
                _say(f"{folder} cannot be written ({reason}); going on without it")
            said.append(reason)

    warnings.showwarning = show


def _clear(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            Path(entry.path).unlink(missing_ok=True)


def _say(what: str) -> None:
    print(f"jaxdesign: compilation cache: {what} (--no-cache turns it off)", file=sys.stderr)

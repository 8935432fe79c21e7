"""Files that are there whole or not at all, also after a kill or on a full disk."""

import errno
import os
import secrets
from pathlib import Path


def write_whole(path: Path, data: bytes, temporary: Path | None = None) -> None:
    """Write `data` under a temporary name in the same folder, force it to disk, and rename it to `path`.

    Args:
        path: the file to be; one that exists is replaced in one step.
        data: all that it holds.
        temporary: the other name, where writers take turns and a killed one's leftovers are to be written over; None
            for a hidden name of its own.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: naming `path`, where the disk refuses; then nothing has changed and the temporary file is gone.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: the folder of {path.name} does not exist; create it first")
    temporary = temporary or path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # the name that was asked for
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk, where the system can (a new file is there only when its folder is)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot, as some over a network
            raise
    finally:
        os.close(descriptor)

"""When files are being written: an interrupt waits until both are there or neither is."""

import threading


class Writing:
    """A context around the writing of files, which another thread may wait for."""

    def __init__(self) -> None:
        self._busy, self._done = threading.Lock(), False

    def __enter__(self) -> "Writing":
        self._busy.acquire()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._done = kind is None
        self._busy.release()

    def settled(self) -> bool:
        """Waits while files are being written, and keeps others from beginning; whether they have been written."""
        self._busy.acquire()
        return self._done

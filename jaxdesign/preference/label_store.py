"""An append-only store of labels on disk that survives a kill at any point: no label lost, none repeated.

    folder/labels.jsonl         one line per label, appended and forced to disk before `append` returns
    folder/round-000003.json    the tasks of a round, written to a temporary name and renamed
    folder/lock                 held (flock) while something is written; the system frees it when its holder dies

A kill in the middle of a write leaves a last line without its newline: a label nobody was told is stored. Readers pass
it over, the next writer cuts it off. Several processes and threads may write; each looks at what the others have
appended before it writes, so a label is refused the second time whoever stored it first.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdesign.preference.label_tasks import CHOICES, LabelRecord, Task, check_record

if TYPE_CHECKING:
    from jaxdesign.preference.labels import Labels


class LabelStore:
    """Labels and rounds in a folder, which is made where there is none.

    Args:
        path: the folder.
        wait: seconds to wait for another writer before giving up.

    Raises:
        ValueError: a line of labels.jsonl, other than an unfinished last one, that is no label.
    """

    def __init__(self, path: str | os.PathLike, *, wait: float = 30.0):
        self.path, self.wait = Path(path), wait
        self.path.mkdir(parents=True, exist_ok=True)
        self._labels = self.path / "labels.jsonl"
        self._records: list[LabelRecord] = []
        self._held: dict[tuple[str, int], LabelRecord] = {}
        self._reading = threading.Lock()
        self._read = 0  # bytes of labels.jsonl taken in, always up to the end of a line
        self._refresh()

    def __repr__(self) -> str:
        return f"LabelStore({str(self.path)!r}, labels={len(self._records)})"

    # ---- labels

    def append(self, records: LabelRecord | Iterable[LabelRecord]) -> int:
        """Store labels; when this returns they are on disk.

        All of them, or none where one is refused or the disk is full; a kill may leave the first few (`outstanding`
        tells which tasks are left).

        Args:
            records: one label or several (one write and one wait for the disk for all of them).

        Returns:
            Number of labels stored.

        Raises:
            TypeError, ValueError: something that is no label (`check_record`); a label of the same task by the same
                annotator that is stored already or comes twice; see `not_held`.
            TimeoutError: another writer held the lock for longer than `wait`.
        """
        records = [records] if isinstance(records, LabelRecord) else list(records)
        for record in records:
            check_record(record)
        lines = "".join(_line(record) for record in records).encode()
        with self._locked():
            self._refresh()
            self._refuse_repeats(records)
            if not records:
                return 0
            self._write_at_end(lines)
            self._refresh()
        return len(records)

    def records(self, round: int | None = None) -> list[LabelRecord]:
        """All labels in the order they were stored, or those of one round."""
        self._refresh()
        return [record for record in self._records if round is None or record.round == round]

    def labels(self, round: int | None = None) -> Labels:
        """All labels as arrays, in the order they were stored, or those of one round."""
        from jaxdesign.preference.labels import as_labels  # loads jax, which storing alone does not need

        records = self.records(round)
        return as_labels([r.pair for r in records], [r.choice for r in records], [r.annotator for r in records])

    def outstanding(self, tasks: Iterable[Task]) -> list[Task]:
        """Those tasks that have no label yet, by anybody, in their order."""
        self._refresh()
        done = {name for name, _ in self._held}
        return [task for task in tasks if task.task_id not in done]

    def not_held(self, records: Iterable[LabelRecord]) -> list[LabelRecord]:
        """Those labels that are not stored yet, so that a file of labels may be read in twice.

        Raises:
            ValueError: a label that is stored with another choice.
        """
        self._refresh()
        fresh = []
        for record in records:
            held = self._held.get((record.task_id, record.annotator))
            if held is None:
                fresh.append(record)
            elif held.choice != record.choice:
                raise ValueError(
                    f"label of task {record.task_id} by annotator {record.annotator}: {CHOICES[record.choice]!r} "
                    f"found, {CHOICES[held.choice]!r} stored; a label that is stored stays"
                )
        return fresh

    # ---- rounds

    def rounds(self) -> list[int]:
        """Numbers of the rounds whose tasks are stored, ascending."""
        return sorted(int(file.stem.removeprefix("round-")) for file in self.path.glob("round-*.json"))

    def write_batch(self, round: int, tasks: Sequence[Task], notes: dict | None = None) -> None:
        """Store the tasks of a round, all or nothing. Storing the same again does nothing.

        Args:
            round: its number.
            tasks: at least one, with task ids that occur in no other round.
            notes: whatever else is to be remembered of this round (JSON: numbers, strings, lists, dicts).

        Raises:
            ValueError: no task, a task of another round, a task id that occurs twice, or another batch stored for it.
            TimeoutError: another writer held the lock for longer than `wait`.
        """
        tasks = list(tasks)
        if not tasks or any(task.round != round for task in tasks):
            raise ValueError(f"tasks: {len(tasks)} found for round {round}; at least one, and only of that round")
        names = [task.task_id for task in tasks]
        rows = [task._asdict() for task in tasks]
        text = json.dumps({"round": round, "notes": notes or {}, "tasks": rows}, indent=1).encode()
        with self._locked():
            file = self._file(round)
            if file.exists():
                if file.read_bytes() != text:
                    raise ValueError(
                        f"round {round}: another batch is stored in {file.name}; a batch that is stored stays"
                    )
                return
            names += [task.task_id for other in self.rounds() for task in self.batch(other)]
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"tasks: {twice} occurs twice; count repeats on from earlier rounds (`make_tasks`)")
            temporary = file.with_suffix(".tmp")  # under the lock: what a killed writer left is written over
            with open(temporary, "wb") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, file)
            self._sync_folder()

    def batch(self, round: int) -> list[Task]:
        """Tasks of a stored round, in their order; ValueError where there is none."""
        return [Task(**{**task, "pair": tuple(task["pair"])}) for task in self._stored(round)["tasks"]]

    def notes(self, round: int) -> dict:
        """The notes stored with a round."""
        return self._stored(round)["notes"]

    # ---- files

    def _file(self, round: int) -> Path:
        return self.path / f"round-{int(round):06d}.json"

    def _stored(self, round: int) -> dict:
        try:
            return json.loads(self._file(round).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"round={round}: not stored; found are {self.rounds()}") from None

    def _refuse_repeats(self, records: list[LabelRecord]) -> None:
        seen = set()
        for record in records:
            key = (record.task_id, record.annotator)
            if key in self._held or key in seen:
                raise ValueError(
                    f"label of task {key[0]} by annotator {key[1]}: stored already or given twice; nothing was stored. "
                    "`not_held` leaves out what is stored"
                )
            seen.add(key)

    def _refresh(self) -> None:
        """Take in the lines that were appended since the last look, by anybody."""
        with self._reading:
            if not self._labels.exists():
                return
            with open(self._labels, "rb") as file:
                if os.fstat(file.fileno()).st_size < self._read:
                    raise ValueError(f"{self._labels.name}: shorter than it was; labels are appended, never removed")
                file.seek(self._read)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]  # what follows is unfinished
            for line in whole.split(b"\n")[:-1]:
                record = self._parsed(line)
                self._records.append(record)
                self._held[record.task_id, record.annotator] = record
            self._read += len(whole)

    def _parsed(self, line: bytes) -> LabelRecord:
        try:
            row = json.loads(line)
            return LabelRecord(**{**row, "pair": tuple(row["pair"]), "choice": CHOICES.index(row["choice"])})
        except (ValueError, TypeError, KeyError) as error:
            place = f"{self._labels.name}, line {len(self._records) + 1}"
            raise ValueError(f"{place}: {line[:80]!r} is no label ({error}); restore the file from a copy") from error

    def _write_at_end(self, lines: bytes) -> None:
        fresh, start = not self._labels.exists(), self._read
        descriptor = os.open(self._labels, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, start)  # cuts off what a killed writer left unfinished
            os.lseek(descriptor, start, os.SEEK_SET)
            while lines:
                lines = lines[os.write(descriptor, lines) :]
            os.fsync(descriptor)
        except BaseException:
            os.ftruncate(descriptor, start)  # the caller is told that nothing was stored
            raise
        finally:
            os.close(descriptor)
        if fresh:
            self._sync_folder()  # the name of a new file is on disk only when its folder is

    def _sync_folder(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        import fcntl  # where there is none (Windows), reading works and writing says so here

        with open(self.path / "lock", "a") as file:
            deadline = time.monotonic() + self.wait
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{self.path}: another writer held the lock for {self.wait:g} s") from None
                    time.sleep(0.01)
            yield  # closing the file frees the lock


def _line(record: LabelRecord) -> str:
    """JSON of a record, with plain numbers whatever kind of number it holds."""
    row = {
        **record._asdict(),
        "round": int(record.round),
        "pair": [int(part) for part in record.pair],
        "repeat": int(record.repeat),
        "choice": CHOICES[record.choice],
        "annotator": int(record.annotator),
        "seconds": None if record.seconds is None else float(record.seconds),
        "confidence": None if record.confidence is None else float(record.confidence),
    }
    return json.dumps({name: value for name, value in row.items() if value is not None}) + "\n"

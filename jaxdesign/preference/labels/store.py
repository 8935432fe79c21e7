"""An append-only store of labels on disk that survives a kill at any point: no label lost, none repeated.

    folder/labels.jsonl         one line per label, appended and forced to disk before `append` returns
    folder/round-000003.json    the tasks of a round, written to a temporary name and renamed
    folder/lock                 held (flock) while something is written; the system frees it when its holder dies

A kill in the middle of a write leaves a last line that is cut short: that label was never acknowledged. Readers pass
it over, the next writer cuts it off. A last line that lacks only its newline is a label, and gets it with the next one.
Several processes and threads may write; each looks at what the others have appended before it writes, so a label is
refused the second time whoever stored it first. A file that was moved, removed or exchanged under a store is an error
at the next look, so that no label is called stored that is not in the store's file.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdesign._files import sync_folder, write_whole
from jaxdesign.preference.labels.tasks import CHOICES, LabelRecord, Task, check_kinds, check_record

if TYPE_CHECKING:
    from jaxdesign.preference.labels.labels import Labels


_ROUND = re.compile(r"round-(\d{6}|[1-9]\d{6,})\.json")  # copies by hand or by a syncing program have other names


class LabelStore:
    """Labels and rounds in a folder, which is made where there is none.

    Args:
        path: the folder.
        wait: seconds to wait for another writer before giving up.

    Raises:
        ValueError: a line of labels.jsonl, other than an unfinished last one, that is no label.

    Every method raises ValueError where labels.jsonl is no longer the file it was.

    Source: derived; checked by tests/preference/labels/test_label_store_writers.py, which kills writers at every step.
    """

    def __init__(self, path: str | os.PathLike[str], *, wait: float = 30.0):
        self.path, self.wait = Path(path), wait
        self.path.mkdir(parents=True, exist_ok=True)
        self._labels = self.path / "labels.jsonl"
        self._records: list[LabelRecord] = []
        self._held: dict[tuple[str, int], LabelRecord] = {}
        self._reading = threading.Lock()
        self._read = 0  # bytes of labels.jsonl taken in
        self._last = b""  # the last line of them; without its newline where the file has none
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
            with self._reading:  # a thread that read what a full disk then takes back would call the file changed
                self._write_at_end((b"\n" if self._owes_newline() else b"") + lines)
            self._refresh()
        return len(records)

    def records(self, round: int | None = None) -> list[LabelRecord]:
        """All labels in the order they were stored, or those of one round."""
        self._refresh()
        return [record for record in self._records if round is None or record.round == round]

    def labels(self, round: int | None = None) -> Labels:
        """All labels as arrays, in the order they were stored, or those of one round."""
        from jaxdesign.preference.labels.labels import as_labels  # loads jax, which storing alone does not need

        records = self.records(round)
        return as_labels([r.pair for r in records], [r.choice for r in records], [r.annotator for r in records])

    def outstanding(self, tasks: Iterable[Task]) -> list[Task]:
        """Those tasks that have no label yet, by anybody, in their order."""
        self._refresh()
        done = {name for name, _ in self._held}
        return [task for task in tasks if task.task_id not in done]

    def skipped(self, tasks: Iterable[Task]) -> list[Task]:
        """Those tasks that have skips and nothing else, in their order and open to anybody: to be asked of others.

        Whoever skipped a task has answered it; a label by another annotator is one more. `run_rounds` does not ask
        again by itself.
        """
        self._refresh()
        choices: dict[str, set[str]] = {}
        for (name, _), record in self._held.items():
            choices.setdefault(name, set()).add(CHOICES[record.choice])
        return [task._replace(annotator=None) for task in tasks if choices.get(task.task_id) == {"skip"}]

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
        found = (_ROUND.fullmatch(file.name) for file in self.path.glob("round-*.json"))
        return sorted(int(match[1]) for match in found if match)

    def write_batch(self, round: int, tasks: Sequence[Task], notes: dict | None = None) -> None:
        """Store the tasks of a round, all or nothing. Storing the same again does nothing.

        Args:
            round: its number.
            tasks: at least one, with task ids that occur in no other round.
            notes: whatever else is to be remembered of this round (JSON: numbers, strings, lists, dicts).

        Raises:
            TypeError, ValueError: notes that JSON cannot hold (NaN, inf and arrays are such).
            ValueError: no task, a task of another round, a task that occurs twice, or another batch stored for it.
            TimeoutError: another writer held the lock for longer than `wait`.
        """
        tasks = list(tasks)
        if not tasks or any(task.round != round for task in tasks):
            raise ValueError(f"tasks: {len(tasks)} found for round {round}; at least one, and only of that round")
        rows, whole = [task._asdict() for task in tasks], {"round": int(round), "notes": notes or {}}
        try:
            text = json.dumps({**whole, "tasks": rows}, indent=1, allow_nan=False).encode()
        except ValueError as error:
            raise ValueError(f"notes: {notes} found; NaN and inf are no JSON, say None or leave them out") from error
        with self._locked():
            file = self._file(round)
            if file.exists():
                if file.read_bytes() != text:
                    raise ValueError(
                        f"round {round}: another batch is stored in {file.name}; a batch that is stored stays (`batch`)"
                    )
                return
            every = tasks + [task for other in self.rounds() for task in self.batch(other)]
            for found in ([task.task_id for task in every], [(tuple(task.pair), task.repeat) for task in every]):
                twice, times = Counter(found).most_common(1)[0]
                if times > 1:
                    raise ValueError(
                        f"tasks: {twice} occurs twice; count repeats on from earlier rounds (`make_tasks`)"
                    )
            # under the lock, so what a killed writer left is written over
            write_whole(file, text, temporary=file.with_suffix(".tmp"))

    def batch(self, round: int) -> list[Task]:
        """Tasks of a stored round, in their order; ValueError where there is none, or its file is damaged."""
        return self._stored(round)[0]

    def notes(self, round: int) -> dict:
        """The notes stored with a round."""
        return self._stored(round)[1]

    # ---- files

    def _file(self, round: int) -> Path:
        return self.path / f"round-{int(round):06d}.json"

    def _stored(self, round: int) -> tuple[list[Task], dict]:
        file = self._file(round)
        try:
            whole = json.loads(file.read_bytes())
            return [Task(**{**task, "pair": tuple(task["pair"])}) for task in whole["tasks"]], dict(whole["notes"])
        except FileNotFoundError:
            raise ValueError(f"round={round}: not stored; found are {self.rounds()}") from None
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{file.name}: is cut short or damaged ({error}); restore it from a copy, as tasks that are made again "
                "may be others than those that were labelled"
            ) from error

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
            try:
                with open(self._labels, "rb") as file:
                    file.seek(self._read - len(self._last))
                    text = file.read()
            except FileNotFoundError:
                if self._read:
                    raise self._changed("is gone") from None
                return
            if not text.startswith(self._last):
                shorter = len(text) < len(self._last)
                raise self._changed("is shorter than it was" if shorter else "is not the file it was")
            *whole, tail = text[len(self._last) :].split(b"\n")
            if whole and self._owes_newline():
                if whole.pop(0):
                    raise self._changed("is not the file it was")
                self._last, self._read = self._last + b"\n", self._read + 1
            for line in whole:
                self._take(line, b"\n")
            if _is_json(tail):
                self._take(tail, b"")

    def _take(self, line: bytes, end: bytes) -> None:
        record = self._parsed(line)
        self._records.append(record)
        self._held[record.task_id, record.annotator] = record
        self._last, self._read = line + end, self._read + len(line + end)

    def _owes_newline(self) -> bool:
        return bool(self._last) and not self._last.endswith(b"\n")

    def _changed(self, what: str) -> ValueError:
        return ValueError(
            f"{self._labels}: {what}, after {len(self._records)} label(s) were read from it; labels are appended, "
            "never removed. Put the file back, or open a LabelStore on what is there now"
        )

    def _parsed(self, line: bytes) -> LabelRecord:
        try:
            row = json.loads(line)
            for name in ("seconds", "confidence"):  # NaN was stored once, which says nothing and is no JSON
                if isinstance(row.get(name), float) and not math.isfinite(row[name]):
                    del row[name]
            record = LabelRecord(**{**row, "pair": tuple(row["pair"]), "choice": CHOICES.index(row["choice"])})
            check_kinds(record)
            return record
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            place = f"{self._labels.name}, line {len(self._records) + 1}"
            raise ValueError(f"{place}: {line[:80]!r} is no label ({error}); restore the file from a copy") from error

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._labels))
        except FileNotFoundError:
            return False

    def _write_at_end(self, lines: bytes) -> None:
        start = self._read
        # only a store that has read nothing makes the file: made anew, it would be filled with zeros to its old length
        descriptor = os.open(self._labels, os.O_RDWR | (0 if start else os.O_CREAT), 0o644)
        try:
            text = os.pread(descriptor, os.fstat(descriptor).st_size, start - len(self._last))
            if not text.startswith(self._last) or b"\n" in text[len(self._last) :]:
                raise self._changed("is not the file it was")
            try:
                os.ftruncate(descriptor, start)  # cuts off what a killed writer left unfinished
                os.lseek(descriptor, start, os.SEEK_SET)
                while lines:
                    lines = lines[os.write(descriptor, lines) :]
                os.fsync(descriptor)
                if not start:
                    sync_folder(self.path)  # the name of a new file is on disk only when its folder is
                if not self._is_in_place(descriptor):
                    raise self._changed("was moved or removed while it was written to")
            except BaseException:
                os.ftruncate(descriptor, start)  # the caller learns that nothing was stored
                raise
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        import fcntl  # where there is none (Windows), reading works and writing says so here

        if not self.path.is_dir():
            raise FileNotFoundError(f"{self.path}: the folder of this store is gone; put it back or open another store")
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


def _is_json(text: bytes) -> bool:
    """Whether a last line is whole; no beginning of a line is JSON, as its bracket closes at the end."""
    try:
        json.loads(text)
        return True
    except ValueError:
        return False


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
    return json.dumps({name: value for name, value in row.items() if value is not None}, allow_nan=False) + "\n"

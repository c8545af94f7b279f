"""A sweep's directory: its frozen configs, its journal, and what has become of each job.

    outputs/sweeps/DATE_TIME-SUFFIX/
      sweep.json          the jobs: number, overrides, monitor, epochs; written after their configs
      journal.jsonl       a line for each start and each end of a job, synced
      jobs/3.yaml, 3.txt  the frozen config of job 3, and what it wrote to its terminal
      3/                  its run directory, as any other

Whether a job is done is what its run directory says. The journal tells the rest: how often it was started, and how it
ended where it could not write that down itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

from bigmodel.durable import sync_directory, sync_file, write_json
from bigmodel.errors import ConfigError, Interrupted, StorageError
from bigmodel.run_directory import Lock, make_exactly
from bigmodel.sweep.settings import Settings

_DONE = ("done", "early_stopped")
_PATIENCE_S = 10.0
_TAIL = 8192  # bytes of a file that are looked through for its last lines


@dataclass(frozen=True)
class Entry:
    """What is known of a job before it starts. `monitor` is the metric that decides its best, `device` the kind it asks
    for; jobs of one `make` differ in numbers only, and are trained as one program. It is empty where a job is not."""

    number: int
    overrides: tuple[str, ...]
    monitor: str
    epochs: float
    device: str = "auto"
    make: str = ""


@dataclass
class State:
    """What has become of a job: queued, running, done, failed or interrupted.

    `code` is its last exit code, negative for a signal; `value` its best monitored metric, or while it runs the last;
    `progress` a fraction of the whole run.
    """

    word: str = "queued"
    code: int | None = None
    step: int = 0
    progress: float = 0.0
    value: float | None = None
    seconds: float = 0.0


class Sweep:
    """A sweep's directory, locked while this object is in use."""

    def __init__(self, path: Path) -> None:
        """Take an existing directory, for a sweep that is there or one to be frozen into it.

        Raises:
            StorageError: another process runs this sweep, or `sweep.json` is damaged.
        """
        self.path = path
        self.lock = _locked(path)
        self.entries: dict[int, Entry] = {}
        self.trust: tuple[str, ...] = ()  # what the sweep was started with; whoever goes on with it grants it anew
        self._journal = path / "journal.jsonl"
        self._settings: Settings | None = None
        self._shared: set[str] = set()
        if is_sweep(path):
            self._read()

    @property
    def settings(self) -> Settings:
        assert self._settings is not None, "nothing was frozen yet"
        return self._settings

    def freeze(self, jobs: Iterable[tuple[Entry, str]], settings: Settings, trust: Sequence[str]) -> None:
        """Add jobs with their configs as YAML: from here on nothing that is edited elsewhere changes them."""
        (self.path / "jobs").mkdir(exist_ok=True)
        for entry, text in jobs:
            file = self.frozen(entry.number)
            file.write_text(text, encoding="utf-8")
            sync_file(file)
            self.entries[entry.number] = entry
        sync_directory(self.path / "jobs")
        self.trust = tuple(trust)
        self.settle(settings)

    def settle(self, settings: Settings) -> None:
        """Note how the jobs are run."""
        self._settings = settings
        self._shared = shared(entry.overrides for entry in self.entries.values())
        entries = [asdict(entry) for entry in self.entries.values()]
        known = {"schema": 1, "settings": asdict(settings), "trust": self.trust, "jobs": entries}
        write_json(self.path / "sweep.json", known)

    def run_of(self, number: int) -> Path:
        return self.path / str(number)

    def frozen(self, number: int) -> Path:
        return self.path / "jobs" / f"{number}.yaml"

    def output(self, number: int) -> Path:
        return self.path / "jobs" / f"{number}.txt"

    def differing(self, number: int) -> list[str]:
        """A job's overrides without those that all jobs share."""
        return [text for text in self.entries[number].overrides if text not in self._shared]

    def note(self, number: int, event: str, code: int | None = None) -> None:
        """Add "started" or "ended" to the journal, on the disk when this returns."""
        record = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), "job": number, "event": event}
        line = json.dumps(record if code is None else record | {"code": code}) + "\n"
        new = not self._journal.exists()
        with self._journal.open("ab+") as file:
            if file.tell() and not _ends_whole(file.fileno(), file.tell()):
                line = "\n" + line  # of a line that a kill has torn, nothing is kept
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_directory(self.path)

    def states(self, of: Collection[int] | None = None) -> dict[int, State]:
        """Of these jobs, else of all. A job that was running when everything was killed is interrupted."""
        states = {number: State() for number in (self.entries if of is None else of)}
        for record in self._events():
            state = states.get(record.get("job", -1))
            if state is not None and record.get("event") == "started":
                state.word, state.code = "interrupted", None
            elif state is not None and isinstance(record.get("code"), int):
                state.code = record["code"]
                state.word = "interrupted" if state.code == Interrupted.exit_code else "failed"
        for number, state in states.items():
            self._look(number, state)
        return states

    def look(self, number: int, state: State) -> None:
        """Bring what a job that runs has reached into its state, from the end of its `metrics.jsonl`."""
        entry = self.entries[number]
        split, _, name = entry.monitor.partition("/")
        with contextlib.suppress(TypeError, ValueError, LookupError, StopIteration):
            records = list(_tail(self.run_of(number) / "metrics.jsonl"))
            state.step, state.progress = int(records[-1]["step"]), min(1.0, records[-1]["epoch"] / entry.epochs)
            state.value = next(float(record[name]) for record in reversed(records) if record["split"] == split)

    def told(self, number: int) -> str:
        """The last error that a job printed; empty if it had no time to."""
        with contextlib.suppress(OSError):
            lines = _last_bytes(self.output(number)).decode("utf-8", "replace").splitlines()
            for line in reversed(lines):
                if line.startswith("error: ") and "run again with -v" not in line:
                    return line.removeprefix("error: ")
        return ""

    def _look(self, number: int, state: State) -> None:
        summary = _json(self.run_of(number) / "summary.json")
        if summary.get("state") in _DONE:
            state.word, state.code, state.progress = "done", 0, 1.0
        with contextlib.suppress(TypeError, ValueError, LookupError):
            state.step, state.seconds = int(summary["step"]), float(summary["seconds"])
            state.value = float(summary["best"]["value"])

    def _events(self) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(OSError):
            yield from _records(self._journal.read_bytes())

    def _read(self) -> None:
        try:
            known = json.loads((self.path / "sweep.json").read_text(encoding="utf-8"))
            self._settings, self.trust = Settings(**known["settings"]), tuple(map(str, known["trust"]))
            for job in known["jobs"]:
                self.entries[int(job["number"])] = Entry(**job | {"overrides": tuple(job["overrides"])})
            self._shared = shared(entry.overrides for entry in self.entries.values())
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            self.lock.release()
            raise StorageError(f"{self.path / 'sweep.json'}: damaged: {error}; start the sweep anew") from error


def make(output_dir: Path) -> Path:
    """A new directory for a sweep, `sweeps/<date>_<time>-<suffix>`.

    Raises:
        StorageError: nothing can be written there.
    """
    while True:
        with contextlib.suppress(FileExistsError):
            name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
            return make_exactly(output_dir / "sweeps" / name)


def is_sweep(path: Path) -> bool:
    return (path / "sweep.json").is_file()


def existing(path: str) -> Path:
    """The directory of a sweep that was started before. Raises ConfigError if there is none."""
    if is_sweep(Path(path)):
        return Path(path)
    if (Path(path) / "config.yaml").is_file():
        raise ConfigError(f"resume: '{path}' is a run, not a sweep; leave out -m")
    raise ConfigError(f"resume: there is no sweep at '{path}' (no sweep.json in it); sweeps lie under outputs/sweeps/")


def shared(overrides: Iterable[Sequence[str]]) -> set[str]:
    """The overrides that all of several jobs have."""
    sets = [set(words) for words in overrides]
    return set.intersection(*sets) if len(sets) > 1 else set()


def in_words(code: int) -> str:
    """An exit code, or the signal it stands for."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (", as the system does where memory runs out" if name == "SIGKILL" else "")


def _locked(path: Path) -> Lock:
    """The sweep's lock; the jobs of one that was killed are given time to die, which those on a GPU need."""
    deadline = monotonic() + _PATIENCE_S
    while True:
        try:
            return Lock(path)
        except StorageError:
            holder = (path / ".lock").read_text(encoding="utf-8").strip()
            if monotonic() > deadline or Path(f"/proc/{holder}").exists():
                raise


def _json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
    return {}


def _tail(path: Path) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(OSError):
        yield from _records(_last_bytes(path))


def _records(text: bytes) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def _last_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        return file.read()


def _ends_whole(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"

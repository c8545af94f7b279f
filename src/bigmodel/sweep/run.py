"""Taking a sweep to its end: which job is started when, and what follows when one ends."""

from __future__ import annotations

import shlex
import signal
import sys
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import asdict
from time import monotonic
from typing import Any

from bigmodel.errors import ConfigError, DivergedError, Interrupted
from bigmodel.guard import complain
from bigmodel.results.leaderboard import leaderboard
from bigmodel.signals import Stop
from bigmodel.sweep import gpus
from bigmodel.sweep.directory import State, Sweep, in_words
from bigmodel.sweep.programs import programs
from bigmodel.sweep.table import Watch, plain, say
from bigmodel.sweep.workers import Workers

_LOOK_S = 0.25  # between looks at the signals and at what the jobs have reached
_FOR_GOOD = (ConfigError.exit_code, DivergedError.exit_code)  # a second try would end as the first


def run(sweep: Sweep, workers: Workers, numbers: Collection[int], trust: Sequence[str], stop: Stop) -> None:
    """Run those of `numbers` that are not done, until all have ended or, stopped or signalled, have saved."""
    stop.defer()
    states = sweep.states(numbers)
    todo = [number for number, state in states.items() if state.word != "done"]
    queue = deque(programs((sweep.entries[number] for number in todo), sweep.settings.jobs))
    workers.tell(_facts(sweep, todo, trust))
    shared = {number for program in queue if len(program) > 1 for number in program}
    started: dict[int, float] = {}
    tries = dict.fromkeys(states, 0)
    signalled, failed = False, False
    with Watch(sweep, states, len(todo), len(queue)) as watch:
        while queue or workers.programs:
            if not signalled and (stop() or (failed and sweep.settings.on_failure == "stop")):
                queue.clear()
                workers.signal(signal.SIGTERM)
                signalled = True
            while queue and len(workers.programs) < sweep.settings.jobs:
                program = queue.popleft()
                for number in program:
                    sweep.note(number, "started")
                    tries[number] += 1
                    started[number] = monotonic()
                    states[number] = State("running")
                    watch.started(number)
                workers.start(program)
            apart: dict[str, list[int]] = {}
            for number, code, why in workers.ended(_LOOK_S):
                if code is None:  # it died with the process it came from, or was not started: no fault of its own
                    tries[number] -= 1
                    shared.discard(number)
                    apart.setdefault(why, []).append(number)
                    queue.extend(() if signalled else ([number],))
                    continue
                sweep.note(number, "ended", code)
                states[number] = sweep.states([number])[number]
                again = states[number].word == "failed" and _again(sweep, code, tries[number]) and not signalled
                if states[number].word == "failed" and number in shared and code not in _FOR_GOOD and not signalled:
                    shared.discard(number)  # it may have been another's fault
                    tries[number] -= 1
                    again = True
                failed |= states[number].word == "failed" and not again
                watch.ended(number, monotonic() - started[number], again)
                if again:
                    queue.append([number])
            for why, program in apart.items():
                watch.apart(program, why)
            watch.look(workers.running, started)


def ending(sweep: Sweep, stop: Stop, trust: Sequence[str]) -> int:
    """Tell what has become of a sweep. Returns 0, or the exit code of the first job that failed.

    Raises:
        Interrupted: a signal came, and there are jobs that it kept from their end.
    """
    states = sweep.states()
    failed = [number for number, state in states.items() if state.word == "failed"]
    left = [number for number, state in states.items() if state.word in ("interrupted", "queued")]
    if failed:
        lines = [
            f"job {number} failed, {in_words(states[number].code or 0)}: "
            f"{sweep.told(number) or 'it left no word'}; see {sweep.output(number)}"
            for number in failed
        ]
        names = ", ".join(map(str, failed))
        again = f"to run what is not done: {go_on(sweep, trust)}"
        complain([*lines, f"{len(failed)} of {len(states)} jobs failed: {names}; {again}"])
        sys.stderr.flush()
    finish(sweep)
    if stop() and left:
        told = f"stopped by {stop.name}: {len(states) - len(failed) - len(left)} of {len(states)} jobs are done"
        raise Interrupted(f"{told}; go on with: {go_on(sweep, trust)}")
    codes = [states[number].code or 1 for number in failed] or [Interrupted.exit_code for _ in left]
    return 0 if not codes else codes[0] if codes[0] > 0 else 128 - codes[0]


def go_on(sweep: Sweep, trust: Sequence[str]) -> str:
    """The command line that takes the sweep up again."""
    words = ["bigmodel-train", "-m", f"resume={sweep.path}", *([f"trust=[{','.join(trust)}]"] if trust else [])]
    return shlex.join(words) if any(" " in word for word in words) else " ".join(words)


def finish(sweep: Sweep) -> None:
    """What a sweep leaves: the table of its jobs, and what they found as a leaderboard and in files."""
    plain(sweep)
    if any(state.word == "done" for state in sweep.states().values()):
        say("")
        say(leaderboard(sweep.path))


def _again(sweep: Sweep, code: int, tries: int) -> bool:
    return sweep.settings.on_failure == "retry" and tries < 2 and code not in _FOR_GOOD


def _facts(sweep: Sweep, numbers: Sequence[int], trust: Sequence[str]) -> dict[str, Any]:
    """What the jobs' processes need to know."""
    return {
        "path": str(sweep.path),
        "threads": sweep.settings.threads,
        "gpus": [asdict(gpu) for gpu in gpus.visible()],
        "trust": [*trust],
        "command": sys.argv,
        "imports": sys.path,
        "modules": _modules(sweep, numbers),
    }


def _modules(sweep: Sweep, numbers: Sequence[int]) -> list[str]:
    """Modules that the jobs' own configs name; of others' only the slow ones that are known to be safe to share."""
    names = set[str]()
    for number in numbers:
        for line in sweep.frozen(number).read_text(encoding="utf-8").splitlines():
            key, _, target = line.strip().partition(": ")
            if key == "_target_" and target.startswith("bigmodel."):
                module = target.rpartition(".")[0]
                names.add(module)
                slow = {"torchvision_model": "torchvision", "timm_model": "timm"}.get(module.rpartition(".")[2])
                names |= {slow} if slow else set()
    return sorted(names)

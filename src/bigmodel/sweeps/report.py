"""Report a sweep's outcome: the table of its jobs, its leaderboard, its failures, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from bigmodel.commands.exit_codes import print_errors
from bigmodel.errors import Interrupted
from bigmodel.formatting import format_count
from bigmodel.quoting import resume_command, trust_override
from bigmodel.runs.comparison.leaderboard import leaderboard
from bigmodel.runs.report.build import build_page
from bigmodel.runs.report.files import try_write
from bigmodel.runtime.signals import StopRequest, describe_exit_code
from bigmodel.sweeps.search.outcome import best_trial_lines
from bigmodel.sweeps.search.plan import read_plan
from bigmodel.sweeps.state.directory import SweepDirectory
from bigmodel.sweeps.state.jobs import JobProgress
from bigmodel.sweeps.table import print_job_table, print_line


def report_outcome(sweep: SweepDirectory, stop: StopRequest, trust: Sequence[str]) -> int:
    """Print the failures and the results of a sweep. Returns 0, or the exit code of the first job that failed.

    Raises:
        Interrupted: a signal stopped the sweep before all of its jobs had ended.
    """
    jobs = sweep.read_progress()
    failed = [number for number, job in jobs.items() if job.status == "failed"]
    unfinished = [number for number, job in jobs.items() if job.status in ("interrupted", "queued")]
    total = max(sweep.trials or 0, len(jobs))
    all_jobs = format_count(total, "job")
    command = resume_command(sweep.path, trust, multirun=True)
    if failed:
        lines = [_describe_failure(sweep, number, jobs[number].code or 0) for number in failed]
        names = ", ".join(map(str, failed))
        again = f"; to run what is not done: {command}" if sweep.num_remaining(jobs) else ""
        print_errors([*lines, f"{len(failed)} of {all_jobs} failed: {names}{again}"])
        sys.stderr.flush()
    _print_results(sweep, jobs, trust)
    if stop() and (unfinished or len(jobs) < total):
        num_ended = len(jobs) - len(failed) - len(unfinished)
        raise Interrupted(f"stopped by {stop.name}: {num_ended} of {all_jobs} are done; to resume: {command}")
    codes = [jobs[number].code or 1 for number in failed] or [Interrupted.exit_code for _ in unfinished]
    return 0 if not codes else codes[0] if codes[0] > 0 else 128 - codes[0]


def _describe_failure(sweep: SweepDirectory, number: int, code: int) -> str:
    error, log = sweep.last_error(number), sweep.log_path(number)
    if not error:
        return f"job {number} failed ({describe_exit_code(code)}) without an error message; see {log}"
    return f"job {number} failed ({describe_exit_code(code)}): {error}; see {log}"


def _print_results(sweep: SweepDirectory, jobs: Mapping[int, JobProgress], trust: Sequence[str]) -> None:
    print_job_table(sweep, jobs)
    done = [number for number, job in jobs.items() if job.status == "done"]
    if not done:
        return
    print_line("")
    print_line(leaderboard(sweep.path))
    if said := try_write(sweep.path, lambda: build_page([sweep.path])):
        print_line(said)
    if sweep.trials is not None:
        print_line("")
        for line in best_trial_lines(sweep, read_plan(sweep.path), done, trust_override(trust)):
            print_line(line)

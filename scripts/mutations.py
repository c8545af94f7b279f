"""Do the tests bite? Takes one safeguard at a time out of a copy of this repository and demands that a test fails.

    python scripts/mutations.py            # all; the exit code is 1 if one survives
    python scripts/mutations.py lock hash  # those with such a word in their name

Each mutation is a small change of text that must still apply: this script fails where the code has moved on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 240  # for the tests of one mutation
QUICK = {"BIGMODEL_FAULTS": "quick", "BIGMODEL_FAULTS_SEED": "1"}


@dataclass(frozen=True)
class Mutation:
    """Text taken out of or put into one file of src/bigmodel, and the tests that are meant to notice."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]


def _one(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, file, ((old, new),), tests)


SWEEPS = "tests/faults/test_sweeps.py"
DAMAGE = "tests/test_resume_damage.py"
CHECKPOINT, ARCHIVE, DAMAGED = (
    "tests/test_checkpoint.py",
    "tests/test_archive.py",
    "tests/faults/test_damaged_checkpoints.py",
)
DURABLE = "tests/test_durable.py"
FOLDERS, PIXELS = "tests/datasets/test_class_folders.py", "tests/datasets/test_pixels.py"
RANKS, SHARDS = "tests/test_ranks.py::test_", "tests/test_sharding.py::test_"
RESTARTS, LAUNCH = "tests/test_restarts.py::test_", "tests/test_launch.py"
MUTATIONS = (
    _one(
        "the mean of the ranks' means",
        "training/state.py",
        "loss * weight if self._is_weighted else loss",
        "loss * weight if self.accumulate > 1 else loss",
        f"{RANKS}two_ranks_have_the_bits_of_two_micro_batches",
    ),
    _one(
        "the pieces of a rank are added in a row",
        "training/piece_tree.py",
        "while nodes and nodes[-1].size == node.size:",
        "while nodes:",
        f"{RANKS}as_many_pieces_have_the_same_bits_on_any_number_of_ranks",
    ),
    _one(
        "the pieces of all ranks are added in a row",
        "runtime/distributed.py",
        "_tree_sum(rows) if as_tree else functools.reduce(torch.add, rows)",
        "functools.reduce(torch.add, rows)",
        f"{RANKS}more_ranks_have_the_bits_of_as_many_micro_batches",
    ),
    _one(
        "a missing piece is not nothing",
        "runtime/distributed.py",
        "            torch._foreach_neg_([*gradients])\n",
        "",
        f"{RANKS}as_many_pieces_have_the_same_bits_on_any_number_of_ranks",
    ),
    _one(
        "all pieces draw the same numbers",
        "training/state.py",
        '*(("piece", number) if number else ())',
        "",
        f"{RANKS}each_piece_draws_its_own_numbers",
    ),
    _one(
        "evaluation adds up each rank by itself",
        "runtime/distributed.py",
        "yield from (sums for sums in round_ if sums is not None)",
        "yield from (sums for sums in round_[::-1] if sums is not None)",
        f"{RANKS}two_ranks_have_the_bits_of_two_micro_batches",
    ),
    _one(
        "a rank without samples counts",
        "runtime/distributed.py",
        "if self.is_idle else sums",
        "if False else sums",
        f"{RANKS}two_ranks_have_the_bits_of_two_micro_batches",
    ),
    _one(
        "each rank tests its own weights",
        "runtime/distributed.py",
        "                dist.broadcast(sent, 0)\n",
        "",
        f"{RANKS}ranks_agree",
    ),
    _one(
        "a rank stops by itself", "runtime/distributed.py", "return bool(flags)", "return flag", f"{RANKS}ranks_agree"
    ),
    _one(
        "all ranks have all cores",
        "runtime/device.py",
        "if shares_cores else 1",
        "if False else 1",
        f"{RANKS}ranks_of_one_machine_share_its_cores",
    ),
    _one(
        "ranks that were killed are not started again",
        "commands/restarts.py",
        "if is_stopped or",
        "if True or",
        f"{RESTARTS}a_killed_rank_starts_again",
    ),
    _one(
        "ranks that start again begin a new run",
        "commands/ranks.py",
        "again = {} if found is None else",
        "again = {} if True else",
        f"{RESTARTS}a_killed_rank_starts_again",
    ),
    _one(
        "a rank that ends without a word has failed by itself",
        "runtime/launch.py",
        "                if noted is None:\n",
        "                if False:\n",
        f"{RESTARTS}a_killed_rank_starts_again",
    ),
    _one(
        "the lock of a run ends with its rank 0",
        "runtime/watch.py",
        "        self.lock = locks[0]\n",
        "        self.lock = os.dup(self._outer.fileno())\n        return\n",
        f"{RESTARTS}the_lock_outlives_rank_0",
    ),
    _one(
        "a rank that waits for the others counts as hung",
        "runtime/watch.py",
        "for rank in busy or processes if",
        "for rank in processes if",
        f"{RESTARTS}the_rank_that_others_wait_for_is_named",
    ),
    _one(
        "ranks that are started again read what an earlier start has written",
        "runtime/meeting.py",
        " and own in store.get(",
        " and store.get(",
        "tests/test_torchrun.py::test_ranks_that_start_again_agree_on_a_new_name",
    ),
    _one(
        "a torchrun goes on with the run of another",
        "runtime/torchrun.py",
        "not self._is_new and ",
        "",
        "tests/test_torchrun.py::test_a_torchrun_finds_its_own_run_only",
    ),
    _one(
        "who has collected GPUs lets nobody else collect",
        "runtime/gpus.py",
        "                    os.close(turn)\n",
        "                    pass\n",
        "tests/test_sweep_jobs.py::test_several_gpus_are_collected_by_one_process_at_a_time",
    ),
    _one(
        "the ranks of a plain sum are added as the collective likes",
        "runtime/distributed.py",
        "if self.size == 2:  # a sum",
        "if True:  # a sum",
        f"{RANKS}more_ranks_have_the_bits_of_as_many_micro_batches",
    ),
    _one(
        "an evaluation counts the batch of a rank that stands in",
        "runtime/distributed.py",
        "if sums is None or self.is_idle else",
        "if sums is None else",
        f"{SHARDS}two_ranks_have_the_bits_of_two_micro_batches",
    ),
    _one(
        "a batch norm has the mean of its rank's piece",
        "runtime/batch_norm.py",
        "if current_world().size > 1 else",
        "if current_world().size > 9 else",
        f"{RANKS}batch_norms_see_the_whole_batch",
    ),
    _one(
        "a batch norm's gradient is that of one rank's loss",
        "runtime/distributed.py",
        "added = ctx.world._add_up(gradient.reshape(-1)).view_as(gradient)",
        "added = gradient",
        f"{RANKS}batch_norms_see_the_whole_batch",
    ),
    _one(
        "a batch norm counts the samples of a rank that stands in",
        "runtime/batch_norm.py",
        "count = 0 if world.is_idle else",
        "count =",
        f"{RANKS}batch_norms_see_the_whole_batch",
    ),
    _one(
        "ranks begin with weights of their own",
        "training/build.py",
        "    device.world.broadcast(model.state_dict().values())  # they are the same",
        "    # they are the same",
        f"{RANKS}ranks_agree",
    ),
    _one(
        "a rank that has lost the others says so beside the first failure",
        "runtime/distributed.py",
        "if place.is_watched or not is_first(",
        "if not is_first(",
        f"{RESTARTS}a_killed_rank_starts_again",
    ),
    _one(
        "each rank tells a common failure",
        "runtime/meeting.py",
        "                return False\n        elif",
        "                return True\n        elif",
        LAUNCH,
    ),
    _one(
        "a rank waits for one that was stopped before they met",
        "runtime/launch.py",
        "if was_early or ends",
        "if ends",
        LAUNCH,
    ),
    _one(
        "a signal that waits for a rank comes before it can tell",
        "runtime/launch.py",
        "    code = run(place, RankStop().install())",
        "    stop = RankStop().install()\n    signal.pthread_sigmask(signal.SIG_SETMASK, ())\n"
        "    code = run(place, stop)",
        LAUNCH,
    ),
    _one(
        "ranks are waited for after one has failed",
        "runtime/launch.py",
        "if was_early or ends.codes[rank] not in _AGREED:",
        "if was_early:",
        LAUNCH,
    ),
    _one(
        "ranks do not hear of a signal to the command",
        "runtime/launch.py",
        "            _signal(left, signal.Signals[stop.name])\n",
        "",
        LAUNCH,
    ),
    _one(
        "a signal that comes twice ends a rank at once",
        "runtime/launch.py",
        "        if not self():\n",
        "        if True:\n",
        LAUNCH,
    ),
    _one(
        "a forked process gets signals before its handlers",
        "runtime/launch.py",
        "signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, ())",
        LAUNCH,
    ),
    _one(
        "a rank that a signal has stopped counts as lost",
        "commands/restarts.py",
        "    if Interrupted.exit_code in ends.codes.values():  # the others",
        "    if False:  # the others",
        f"{RESTARTS}what_a_rank_has_said_ends_the_run",
    ),
    _one(
        "an unknown error beside a killed rank ends the run",
        "commands/restarts.py",
        "if known or (told and not ends.untold):",
        "if told:",
        f"{RESTARTS}what_no_rank_has_said_is_an_accident",
    ),
    _one(
        "ranks start again once more than they may",
        "commands/restarts.py",
        "len(failures) > allowed",
        "len(failures) > allowed + 1",
        f"{RESTARTS}how_often_ranks_start_again",
    ),
    _one(
        "a system that is out of memory kills all restarts",
        "commands/restarts.py",
        "kills > min(allowed, _KILLS)",
        "kills > allowed",
        f"{RESTARTS}how_often_ranks_start_again",
    ),
    _one(
        "a new checkpoint gives no new restarts",
        "commands/restarts.py",
        "            if newest > saved:\n",
        "            if False:\n",
        f"{RESTARTS}how_often_ranks_start_again",
    ),
    _one(
        "a run that was stopped starts again",
        "commands/restarts.py",
        "is_stopped = stop() or Interrupted.exit_code in ends.codes.values()",
        "is_stopped = False",
        f"{RESTARTS}how_often_ranks_start_again",
    ),
    _one(
        "ranks go on in a directory in which no run has begun",
        "commands/restarts.py",
        "    if watch.directory is None or (",
        "    if True or (",
        f"{RESTARTS}a_directory_in_which_no_run_has_begun_is_removed",
    ),
    _one(
        "a restarted rank 0 locks the run anew",
        "commands/ranks.py",
        "RunLock(directory, inherited=held)",
        "RunLock(directory)",
        f"{RESTARTS}a_killed_rank_starts_again",
    ),
    _one(
        "ranks that all have begun to wait count as hung",
        "runtime/watch.py",
        "if not late or (not busy and len(late) < len(ages)):",
        "if not late:",
        f"{RESTARTS}the_rank_that_others_wait_for_is_named",
    ),
    _one(
        "of ranks that all wait not the stopped one is named",
        "runtime/watch.py",
        "(_state(processes[rank]) in _STOPPED, ages[rank])",
        "ages[rank]",
        f"{RESTARTS}the_rank_that_others_wait_for_is_named",
    ),
    _one(
        "a rank that reads its data for long counts as hung",
        "runtime/watch.py",
        "if step is None and self._has_computed(",
        "if False and self._has_computed(",
        f"{RESTARTS}the_rank_that_others_wait_for_is_named",
    ),
    _one(
        "auto is resolved by each rank",
        "commands/ranks.py",
        "        for key in auto_keys(config.values)\n",
        "        for key in ()\n",
        f"{RANKS}what_looks_at_one_process_is_refused_before_ranks_start",
    ),
    _one(
        "a profile of one rank passes for one of the run",
        "commands/ranks.py",
        'if config.values["profile"]:',
        "if False:",
        f"{RANKS}what_looks_at_one_process_is_refused_before_ranks_start",
    ),
    _one(
        "ranks of a divided model write where others do not look",
        "commands/ranks.py",
        "if world.is_divided and world.any(not mark.is_file()):",
        "if world.is_divided and not mark.is_file():",
        f"{SHARDS}every_rank_must_see_the_directory",
    ),
    _one(
        "each rank of a divided model reads the first part",
        "runtime/sharding.py",
        "first = _first_row(len(target), self.part, self.parts)",
        "first = 0",
        f"{SHARDS}a_run_goes_on_from_parts_and_from_a_whole_checkpoint",
    ),
    _one(
        "Muon orthogonalizes the rows of a rank",
        "optim/muon.py",
        'current_world().map_whole(updates, rows, partial(self._orthogonalize, group["iterations"]))',
        'partial(self._orthogonalize, group["iterations"])(torch.stack(updates)).unbind()',
        f"{SHARDS}two_ranks_have_the_bits_of_two_micro_batches",
    ),
    _one(
        "batch norms of micro-batches over ranks",
        "training/build.py",
        "if num_norms and settings.accumulate > 1:",
        "if False:",
        f"{RANKS}what_ranks_do_not_go_with_is_refused_in_a_line",
    ),
    _one(
        "a divided model's gradients are a mean",
        "runtime/sharding.py",
        "sharded.set_gradient_divide_factor(1.0)",
        "sharded.set_gradient_divide_factor(2.0)",
        f"{SHARDS}two_ranks_have_the_bits_of_two_micro_batches",
    ),
    _one(
        "a divided model's norm is that of one part",
        "runtime/sharding.py",
        "return torch.stack(squares).sum()",
        "return square",
        f"{SHARDS}what_is_clipped_or_normed_is_close",
    ),
    _one(
        "rows are stepped as if they were whole",
        "optim/rows_step.py",
        "padding=-before % width",
        "padding=0",
        f"{SHARDS}two_ranks_have_the_bits_of_two_micro_batches",
    ),
    _one(
        "the manifest does not wait for other ranks' parts",
        "runs/checkpoint_parts.py",
        "for found in self._exchange(mine):",
        "for found in (self._exchange(mine), [mine])[1]:",
        f"{SHARDS}parts_are_read_whole_by_one_process",
    ),
    _one(
        "a checkpoint that lacks a part is whole",
        "runs/manifest.py",
        "[*numbers] == [*range(1, counts[0] + 1)]",
        "bool(numbers)",
        f"{SHARDS}a_manifest_that_lacks_a_part_is_not_believed",
    ),
    _one("a run's own files may be links", "safe_files.py", " | os.O_NOFOLLOW", "", DURABLE),
    _one("a run's own files may be hard links", "safe_files.py", ".st_nlink > 1:", ".st_nlink > 9:", DURABLE),
    _one(
        "a run's own folders may be links",
        "safe_files.py",
        "        if stat.S_ISLNK(mode):\n",
        "        if False:\n",
        DURABLE,
    ),
    _one(
        "what is no regular file is read",
        "safe_files.py",
        "    if not stat.S_ISREG(found.st_mode):\n",
        "    if False:\n",
        DURABLE,
    ),
    _one(
        "a sweep that is looked at is locked",
        "sweeps/resume.py",
        ', to_write="dry_run=true" not in overrides',
        "",
        DURABLE,
    ),
    _one(
        "a mark cuts a word of Hindi or Thai",
        "datasets/text/word_tokenizer.py",
        'if unicodedata.category(chr(code))[0] == "M"',
        'if unicodedata.category(chr(code))[0] == "?"',
        "tests/datasets/test_word_tokenizer.py",
    ),
    _one(
        "words are not brought to NFC",
        "datasets/text/word_tokenizer.py",
        'unicodedata.normalize("NFC", text.lower())',
        "text.lower()",
        "tests/datasets/test_word_tokenizer.py",
    ),
    _one(
        "a checkpoint forgets how its words are cut",
        "datasets/text/word_tokenizer.py",
        '({"rule": rule} if rule > 1 else {})',
        "{}",
        "tests/datasets/test_word_tokenizer.py",
    ),
    _one(
        "a vocabulary of nothing is trained on",
        "datasets/text/labelled_text.py",
        'if shares["train"] == 1:',
        "if False:",
        "tests/datasets/test_text_sources.py",
    ),
    _one(
        "a language model learns commas and brackets",
        "datasets/text/text_sources.py",
        "if is_table(file) and self.column is None:",
        "if False:",
        "tests/datasets/test_text_sources.py",
    ),
    _one(
        "the name of a missing file is classified as a text",
        "inference/processors/texts.py",
        "if _FILE_NAME.fullmatch(given):",
        "if False:",
        "tests/commands/test_texts.py::test_a_model_of_plain_text_takes_no_table",
    ),
    _one(
        "a program that trains keeps torch's random numbers",
        "python_api.py",
        "        torch.set_rng_state(random_state)\n",
        "",
        "tests/test_python.py::test_a_run_leaves_the_process_as_it_was",
    ),
    _one(
        "a program that trains keeps its handler of interrupts",
        "python_api.py",
        "        signal.signal(signal.SIGINT, before)\n",
        "        pass\n",
        "tests/test_python.py::test_a_run_leaves_the_process_as_it_was",
    ),
    _one(
        "an option of predict that the processor does not have is refused",
        "inference/options.py",
        "        if key not in parameters:\n",
        "        if False:\n",
        "tests/test_python.py::test_a_wrong_option_is_refused",
    ),
    _one(
        "trials of a rate begin with the same weights",
        "training/tuning/lr_range.py",
        "        run.state.model.load_state_dict(first_weights)\n",
        "",
        "tests/commands/test_finders.py::test_trials_begin_alike",
    ),
    _one(
        "a run's own config reads what it likes",
        "config/saved.py",
        "    reject_resolvers(file, loaded, trust)\n",
        "",
        "tests/faults/test_secrets.py::test_a_run_from_a_stranger_reads_nothing",
    ),
    _one(
        "text from the environment by any spelling",
        "config/validation.py",
        "        elif names and not is_plain(raw):\n",
        "        elif False:\n",
        "tests/faults/test_secrets.py::test_a_reference_spelled_in_another_way",
    ),
    _one(
        "a resume reaches the network",
        "commands/train.py",
        "contextlib.nullcontext() if may_download else offline(_ONCE_MORE)",
        "contextlib.nullcontext()",
        "tests/faults/test_no_network.py::test_a_strangers_mirror_is_not_asked",
    ),
    _one(
        "a glob without the loader",
        "config/override_parser.py",
        "        override.config_loader = loader  # which `parse_override` forgets\n",
        "",
        "tests/test_overrides.py::test_every_way_to_write_a_sweep",
    ),
    _one(
        "Hydra's keys in an experiment are ignored",
        "config/composition.py",
        "            problems += check_hydra_node(hydra, _standard(loader, hydra), multirun)\n",
        "",
        "tests/test_own_yaml.py::test_hydras_keys_in_an_experiment_are_refused_or_honored",
    ),
    _one(
        "a state that no run wrote",
        "runs/checkpoint.py",
        '    check_state(path, state, manifest["step"])\n    return Checkpoint',
        "    return Checkpoint",
        "tests/test_checkpoint.py::test_a_state_that_no_run_wrote_is_damage",
    ),
    _one(
        "a momentum read from a file keeps its own layout",
        "training/restoring.py",
        "        _match_memory_formats(optimizer)\n",
        "",
        "tests/test_precision.py::test_a_run_resumes_bitwise_in_the_other_layout",
    ),
    _one(
        "pieces of a batch count alike",
        "training/state.py",
        "(loss * weight if self._is_weighted else loss)",
        "loss",
        "tests/tasks/test_pieces.py",
    ),
    _one(
        "no fsync of a checkpoint's files",
        "runs/tensor_files.py",
        "    fsync_path(path)\n    return {",
        "    return {",
        f"{CHECKPOINT}::test_files_then_directory_then_rename_then_parent",
    ),
    _one(
        "no fsync of small files",
        "safe_files.py",
        "        fsync_path(scratch)\n        os.rename(scratch, path)",
        "        os.rename(scratch, path)",
        f"{CHECKPOINT}::test_json_is_synced_before_it_is_renamed",
    ),
    _one(
        "no fsync of directories",
        "safe_files.py",
        "fsync_directory = fsync_path",
        "def fsync_directory(path: Path) -> None:\n    return\n",
        f"{CHECKPOINT}::test_files_then_directory_then_rename_then_parent",
    ),
    Mutation(
        "a checkpoint written in place, without the one rename",
        "runs/checkpoint.py",
        (
            ("        scratch.mkdir()\n", "        (scratch := target).mkdir()\n"),
            ("        if os.path.lexists(target):", "        if False:"),
            ("        os.rename(scratch, target)\n", ""),
        ),
        (CHECKPOINT,),
    ),
    _one("no hash check", "runs/manifest.py", "        if found != digest:", "        if False:", CHECKPOINT, DAMAGED),
    _one(
        "no check of the step in a checkpoint's name",
        "runs/manifest.py",
        'step_of(path) not in (None, manifest.get("step")):',
        "False:",
        DAMAGED,
    ),
    _one(
        "pruning takes the best",
        "runs/checkpoint.py",
        "if path not in kept and steps[path] != keep_step:",
        "if path not in kept:",
        f"{CHECKPOINT}::test_pruning_keeps_two_at_least_and_the_best",
    ),
    _one(
        "best.json is believed",
        "runs/best_checkpoint.py",
        """if {key: found.state["best"][key] for key in ("step", "value")} == best:""",
        "if True:",
        DAMAGED,
    ),
    _one(
        "no lock",
        "runs/lock.py",
        "                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "",
        "tests/test_resume.py::test_a_second_writer_is_told_who_writes",
    ),
    _one(
        "a sweep redoes what is done",
        "sweeps/run.py",
        "if not sweep.is_final(job)]",
        "if True]",
        f"{SWEEPS}::test_five_jobs_die_in_five_ways_and_only_they_are_run_again",
    ),
    _one(
        "a start that is not the last trains too",
        "sweeps/engines/remote_job.py",
        'if starts.last(self.number).get("token") != self.token:',
        "if False:",
        "tests/test_other_machines.py::test_a_job_that_is_killed_leaves_word_and_an_old_start_does_nothing",
    ),
    _one(
        "what is with Slurm is handed over again",
        "sweeps/engines/slurm.py",
        "if number in self._submitted:",
        "if False:",
        "tests/test_other_machines.py::test_slurm_is_asked_once_for_each_job_and_finds_it_again",
    ),
    _one(
        "a job of a sweep begins anew",
        "sweeps/engines/job_process.py",
        '    if (directory / "config.yaml").is_file():\n',
        "    if False:\n",
        "tests/test_sweep_jobs.py::test_what_is_queued_is_frozen",
    ),
    _one(
        "metrics are not cut on resume",
        "runs/metrics_repair.py",
        'elif record["step"] <= step and record["split"] != "test":',
        "else:",
        "tests/test_properties.py::test_metrics_are_cut_at_the_step",
        "tests/test_resume.py::test_from_every_step_of_two_epochs",
    ),
    _one(
        "a last line of metrics without its end is kept",
        "runs/metrics_repair.py",
        '        if not line.endswith(b"\\n"):\n            break\n',
        "",
        f"{DAMAGE}::test_a_last_line_without_its_end_is_not_continued",
    ),
    _one(
        "a damaged line of metrics takes what follows with it",
        "runs/metrics_repair.py",
        "            damaged.append(number)\n",
        "            damaged.append(number)\n            break\n",
        f"{DAMAGE}::test_a_damaged_line_costs_itself_alone_and_is_told",
    ),
    _one(
        "metrics are not held against the checkpoint",
        "listeners/totals.py",
        "if state is None or state == self.state():",
        "if True:",
        f"{DAMAGE}::test_a_changed_number_is_told",
    ),
    _one(
        "what a run reached before it was resumed is not in its summary",
        "commands/session.py",
        '    warnings += totals.restore(records, checkpoints.restored.get("metrics"))\n',
        "",
        "tests/test_resume.py::test_a_finished_run_resumes_to_itself",
    ),
    _one(
        "config.yaml is not held against the checkpoint",
        "commands/resume.py",
        "        if problem or (key in MAY_INCREASE and changed_in_file):",
        "        if False:",
        f"{DAMAGE}::test_a_config_that_is_not_the_runs_is_refused",
    ),
    _one(
        "the hash of config.yaml is not looked at",
        "config/seal.py",
        "return seal(text) == text if seals else None",
        "return None",
        f"{DAMAGE}::test_before_the_first_save_nothing_but_the_hash_can_tell",
    ),
    Mutation(
        "pointers are written before the checkpoint",
        "runs/checkpoint.py",
        (
            ("    path = save(root, step, tensors, state, passing, write)\n    update", "    update"),
            ("keep)\n    return path", "keep)\n    return save(root, step, tensors, state, passing, write)"),
        ),
        (f"{CHECKPOINT}::test_what_points_at_a_checkpoint_follows_it",),
    ),
    _one(
        "data workers keep the lock",
        "runs/lock.py",
        "        os.register_at_fork(after_in_child=self._file.close)  # a data worker may outlive the run",
        "        pass",
        "tests/test_resume.py::test_a_data_worker_that_outlives_its_parent_holds_no_lock",
    ),
    _one(
        "what a stopped run has saved displaces what was due",
        "runs/checkpoint.py",
        "counted = [path for path in known if not is_passing(path)]",
        "counted = known",
        f"{DAMAGE}::test_what_a_stopped_run_has_saved_displaces_nothing",
    ),
    _one(
        "the average of the weights is not warmed up",
        "training/ema.py",
        "return min(decay, (1 + step) / (10 + step))",
        "return decay",
        "tests/test_train.py::test_ema_soon_forgets_the_random_start",
    ),
    _one(
        "device=auto measures",
        "runtime/precision.py",
        "    if None in (device.precision, device.channels_last):\n        _choose_by_rule(device, model, narrow)\n",
        '    device.precision, device.channels_last = device.precision or "auto", "auto"\n',
        "tests/test_precision.py::test_null_is_settled_by_rule",
    ),
    _one(
        "randomness is not keyed by the step",
        "training/state.py",
        '            self.device.seed_rng(self.seed, "step", self.step, *(("piece", number) if number else ()))\n',
        "",
        "tests/test_resume.py::test_from_every_step_of_two_epochs",
    ),
    _one(
        "augmentation is not keyed by the step",
        "datasets/images/augment.py",
        "derive(seed, purpose, step)",
        "derive(seed, purpose)",
        "tests/test_augment.py::test_it_differs_by_step_seed_and_image",
    ),
    _one(
        "every epoch in the same order",
        "datasets/loading/order.py",
        'derive(self.seed, "order", epoch)',
        'derive(self.seed, "order")',
        "tests/test_properties.py::test_epochs_and_seeds_differ_in_order",
    ),
    _one(
        "a streamed text begins elsewhere",
        "datasets/text/continuous.py",
        "enumerate(samples, first))",
        "enumerate(samples))",
        "tests/datasets/test_streaming.py",
    ),
    _one(
        "a wrong claim about the data is not seen",
        "datasets/loading/claims.py",
        "if claim is not None and not _is_same(claim, properties[key])",
        "if False",
        "tests/datasets/test_sounds.py::test_digits_are_split_by_their_numbers_and_make_images",
    ),
    _one(
        "a streamed batch is lost",
        "datasets/images/loader.py",
        "train_indices(first, last)",
        "train_indices(first + (not self.is_resident), last)",
        "tests/test_data_order.py",
    ),
    _one(
        "optimizer state is not restored",
        "training/restoring.py",
        '{"state": states, "param_groups": groups}',
        '{"state": {}, "param_groups": groups}',
        "tests/test_resume.py::test_from_every_step_of_two_epochs",
    ),
    _one(
        "a NaN is stepped with",
        "training/nonfinite.py",
        "return None if math.isfinite(norm) else update",
        "return None",
        "tests/faults/test_divergence_and_memory.py",
    ),
    _one(
        "a GPU steps with a NaN",
        "training/nonfinite.py",
        "        self._found_nonfinite.logical_or_(norm.isfinite().logical_not())\n",
        "",
        "tests/test_divergence.py",
    ),
    _one(
        "no allow-list in the check",
        "config/instantiate.py",
        "if not isinstance(target, str) or not _within(target, allowed):",
        "if not isinstance(target, str):",
        "tests/test_cli.py::test_a_mistake_is_one_plain_line_and_leaves_nothing",
        "tests/test_check_and_build.py::test_a_node_inside_another_is_of_its_own_kind",
    ),
    _one(
        "no allow-list in building",
        "config/instantiate.py",
        'if not callable(target) or not _within(f"{target.__module__}.{target.__qualname__}", allowed):',
        "if not callable(target):",
        "tests/test_check_and_build.py::test_building_holds_the_true_module",
    ),
    _one(
        "pickles of any kind",
        "models/weights/unpickle.py",
        "weights_only=True",
        "weights_only=False",
        "tests/models/test_models.py::test_a_malicious_pickle_is_not_executed",
    ),
    _one(
        "no bounds of YAML",
        "config/yaml_limits.py",
        "if values > _MOST_VALUES or len(open_) > _DEEPEST:",
        "if False:",
        "tests/test_strange_yaml.py::test_a_bomb_is_refused_by_name[too many values]",
    ),
    _one(
        "no bounds of archives",
        "datasets/files/archive.py",
        "if room < 0 or count > max_members:",
        "if False:",
        ARCHIVE,
    ),
    _one(
        "names in archives may lead outside",
        "datasets/files/archive.py",
        'if path.is_absolute() or ".." in path.parts or "\\\\" in member.name or "\\0" in member.name:',
        "if False:",
        ARCHIVE,
    ),
    _one(
        "links in archives",
        "datasets/files/archive.py",
        "if not (member.isreg() or member.isdir()):",
        "if False:",
        ARCHIVE,
    ),
    _one(
        "no checksum of archives",
        "datasets/files/archive.py",
        "while block := rest.read(_BLOCK):",
        'while block := b"":',
        ARCHIVE,
    ),
    _one(
        "no hash of downloads",
        "datasets/files/download.py",
        "if actual != expected.lower():",
        "if False:",
        "tests/test_download.py",
        "tests/faults/test_bad_archives.py::test_broken_downloads",
    ),
    _one(
        "a second signal is ignored",
        "runtime/signals.py",
        "            os._exit(128 + number)",
        "            return",
        "tests/test_resume.py::test_a_second_signal_ends_at_once",
    ),
    _one(
        "ranges are not held",
        "config/signatures.py",
        ' or (None if arguments[1].holds(value) else f"a number {arguments[1]}")',
        "",
        "tests/test_properties.py",
    ),
    _one(
        "a folder that is linked twice is read twice",
        "datasets/files/folder_walk.py",
        "    seen.add(real)\n",
        "",
        f"{FOLDERS}::test_links_are_followed_once_and_never_in_a_circle",
    ),
    _one(
        "names of splits are classes",
        "datasets/files/split_names.py",
        "_NAMES.get(plain)",
        "None",
        f"{FOLDERS}::test_the_usual_names_of_splits_are_no_classes",
    ),
    _one(
        "broken pictures are found one by one, while training",
        "datasets/files/class_folders.py",
        "    if check is None:\n",
        "    if check:\n",
        f"{FOLDERS}::test_all_broken_pictures_are_listed_before_anything_begins",
    ),
    _one(
        "deep values are cut off at 255",
        "datasets/images/pixels.py",
        "        if is_deep(image.mode):\n",
        "        if image.mode == '':\n",
        f"{PIXELS}::test_deep_values_keep_all_their_levels",
    ),
    _one(
        "hidden colours show through",
        "datasets/images/pixels.py",
        "image.has_transparency_data:",
        "image.mode == '':",
        f"{PIXELS}::test_a_shape_drawn_only_in_alpha_is_seen",
    ),
    _one(
        "prediction forgets how pictures were read",
        "datasets/images/dataset.py",
        "            **self.rules.about(),\n",
        "",
        f"{PIXELS}::test_deep_values_keep_all_their_levels",
    ),
    _one(
        "a frozen norm goes on to move",
        "models/frozen_norms.py",
        "            object.__setattr__(module,",
        "            print(module,",
        "tests/models/test_frozen_norms.py",
    ),
    _one(
        "the order is balanced by nothing",
        "datasets/loading/order.py",
        "    quotas[more] += 1\n",
        "",
        "tests/test_properties.py::test_a_balanced_epoch_has_every_class_equally_often",
    ),
    _one(
        "a trial that diverged teaches nothing",
        "sweeps/search/study.py",
        "        if any(each.code == DivergedError.exit_code for each in ended.values()):\n",
        "        if False:\n",
        "tests/test_search.py::test_what_diverged_is_learnt_from",
    ),
    _one(
        "a winner is named between different measures",
        "commands/compare.py",
        'refused = bool(differs) and settings["force"] != "true"',
        "refused = False",
        "tests/commands/test_compare.py::test_what_is_not_one_measure_has_no_winner",
    ),
    _one(
        "a metric of one's own is better high",
        "metric_spec.py",
        "return dict(filter(None, map(_read, given.items()))) if isinstance(given, Mapping) else {}",
        "return STANDARD",
        "tests/tasks/test_metric_spec.py",
    ),
    _one(
        "a quotation mark that is never closed is refused",
        "datasets/files/delimited.py",
        'if reader.line_num == before or "unexpected end" in str(error):',
        "if reader.line_num == before:",
        "tests/datasets/test_table_files.py",
    ),
    _one(
        "a coded sound that was cut is refused",
        "datasets/audio/coded_sounds.py",
        "    if end is not None:\n",
        "    if False:\n",
        "tests/datasets/test_sound_formats.py",
    ),
    _one(
        "times of two units are refused",
        "datasets/files/timestamps.py",
        "(_other_units(texts, values) if numeric else {})",
        "{}",
        "tests/datasets/test_series_files.py",
    ),
    _one(
        "digits with leading zeros are no numbers",
        "datasets/tables/roles.py",
        "elif (padded := None if problems else with_leading_zero(there)) is not None",
        "elif (padded := None) is not None",
        "tests/datasets/test_roles.py",
    ),
    _one(
        "a list of labels is no class",
        "datasets/images/csv_images.py",
        'if target_type in ("auto", "class"):\n',
        "if False:\n",
        "tests/datasets/test_picture_targets.py",
    ),
    _one(
        "no window runs over a gap in time",
        "datasets/tables/series_steps.py",
        "return values_TC, passed > 0, ",
        "return values_TC, breaks_T, ",
        "tests/datasets/test_series_files.py",
    ),
    _one(
        "a path that is there twice is refused",
        "datasets/files/locations.py",
        "    _refuse_two(found, here, key)\n",
        "",
        "tests/datasets/test_locations.py",
    ),
    _one(
        "one row of each class stays in training",
        "datasets/loading/splits.py",
        "min(int(share), len(members[label]) - 1)",
        "int(share + 0.99)",
        "tests/datasets/test_roles.py",
    ),
)


class Stale(Exception):
    """A mutation's text is not in its file exactly once."""


def copied(place: Path) -> Path:
    """The files that git knows or would take, in a directory of their own."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    return place


def mutated(text: str, mutation: Mutation) -> str:
    for old, new in mutation.changes:
        if text.count(old) != 1:
            raise Stale(f"{mutation.name}: {mutation.file} has {text.count(old)} times, not once: {old.strip()[:80]!r}")
        text = text.replace(old, new)
    return text


def run(place: Path, tests: tuple[str, ...], stop: bool = True) -> tuple[list[str], str]:
    """The tests that failed, and pytest's last words."""
    report = place / "report.xml"
    environment = os.environ | QUICK | {"PYTHONPATH": str(place / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    try:
        done = subprocess.run(
            [*command, *(["-x"] if stop else [])],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS if stop else 2 * SECONDS,
        )
    except subprocess.TimeoutExpired:
        return [], f"more than {SECONDS} s"
    words = (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]
    if not report.is_file():
        return [], words
    cases = ElementTree.parse(report).iter("testcase")
    return [f"{case.get('name')}" for case in cases if any(map(_bites, case.findall("failure")))], words


def _bites(failure: ElementTree.Element) -> bool:
    """Whether a test failed for what the mutation does, and not because the mutated code does not run at all."""
    message = f"{failure.get('message')}\n{failure.text}"
    return not any(name in message for name in ("ImportError", "NameError", "SyntaxError", "UnboundLocalError"))


def judge(mutation: Mutation) -> tuple[Mutation, list[str], str]:
    with tempfile.TemporaryDirectory(prefix="mutation-") as directory:
        place = copied(Path(directory))
        file = place / "src" / "bigmodel" / mutation.file
        file.write_text(mutated(file.read_text(encoding="utf-8"), mutation), encoding="utf-8")
        compile(file.read_text(encoding="utf-8"), str(file), "exec")
        return mutation, *run(place, mutation.tests)


def main(words: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    stale = []
    for mutation in MUTATIONS:
        try:
            mutated((ROOT / "src" / "bigmodel" / mutation.file).read_text(encoding="utf-8"), mutation)
        except Stale as error:
            stale.append(str(error))
    if stale:
        print("\n".join(stale))
        return 1
    began = monotonic()
    with tempfile.TemporaryDirectory(prefix="mutation-") as directory:
        place = copied(Path(directory))
        where = "import bigmodel; print(bigmodel.__file__)"
        environment = os.environ | {"PYTHONPATH": str(place / "src")}
        seen = subprocess.run([sys.executable, "-c", where], cwd=place, env=environment, capture_output=True, text=True)
        if not seen.stdout.startswith(str(place)):
            print(f"the tests would not see the copy, but {seen.stdout.strip() or seen.stderr.strip()}")
            return 1
        failed, last = run(place, tuple(sorted({test for m in chosen for test in m.tests})), stop=False)
        if failed or " passed" not in last or "failed" in last or "error" in last:
            print(f"unmutated, the tests must pass: {last} {', '.join(failed)}")
            return 1
    print(f"unmutated: {last.strip('= ')}\n\n| taken out | caught by |\n|---|---|", flush=True)
    survived = 0
    with ThreadPoolExecutor(max(1, min(4, (os.cpu_count() or 1)))) as pool:
        for mutation, caught, last in pool.map(judge, chosen):
            survived += not caught
            print(f"| {mutation.name} | {caught[0] if caught else f'**nothing** ({last})'} |", flush=True)
    print(f"\n{len(chosen) - survived} of {len(chosen)} caught, {monotonic() - began:.0f} s")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

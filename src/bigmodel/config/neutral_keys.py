"""Keys of a run's config that do not change its result, and what may change when a run is resumed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

RESULT_NEUTRAL_KEYS = (
    "listeners",
    "keep",
    "save_every",
    "data_dir",
    "dataset.data_dir",
    "dataset.download",
    "output_dir",
    "workers",
    "resident_gb",
    "profile",
    "dry_run",
    "device.restarts",
    "device.timeout",
)
"""The same numbers to the last bit, whatever their values. A key stands for all keys below it, too."""

EQUAL_IN_COMPARISONS: Mapping[str, str] = {
    "log_every": "changes which records metrics.jsonl has, so a resumed run must keep it",
    "device.index": "names one of several devices of a kind",
    "device.checkpoint_activations": "changes memory and time alone",
    "device.memory_gb": "is what a plan holds a run's memory against",
    "device.threads": "changes the last bits only, which are below what a comparison can resolve",
    "device.count": "changes the last bits, and which numbers dropout draws, unless `pieces` is set",
    "device.shard": "changes the last bits only, where gradients are clipped or groups of ranks are added up",
    "device.shard_ranks": "changes the last bits only, as another order of the sums would",
}
"""Further keys in which runs of one configuration may differ, with the reason why they are not neutral."""

ADDED_LATER: Mapping[str, object] = {
    "sampler": "shuffled",
    "pieces": None,
    "device.cudnn_benchmark": False,
    "device.count": 1,
    "device.checkpoint_activations": "none",
    "device.memory_gb": None,
    "device.restarts": 3,
    "device.timeout": 600,
    "device.shard": "auto",
    "device.shard_ranks": None,
    "init.frozen_norms": "train",
    "init.incomplete": "refuse",
    "init.merge": None,
    "init.skip": None,
    "loss.weight": None,
    "task.loss.weight": None,
    "dataset.augment.random_resized_crop": 0,
    "dataset.broken": "refuse",
    "dataset.decimal": ".",
    "dataset.sentinels": [],
    **{
        f"dataset.{name}": None
        for name in ("classes", "columns", "encoding", "separator", "text_column", "time_format")
    },
}
"""Keys that version 0.1.0 lacked, with the value that does what it did: a config without the key has this value."""

WITHOUT_EFFECT_UNLESS: Mapping[str, str] = {"init.frozen_norms": "init.freeze"}
"""Keys that change nothing while another key is null."""

MAY_CHANGE_ON_RESUME: Mapping[str, str] = {
    "device": "a run may go on on another machine; the last bits may then differ, which is reported",
}
"""Further keys that a resumed run may change, with the reason why they are not neutral."""

MAY_INCREASE = ("epochs",)
"""Keys that a resumed run may raise, but not lower."""

ALLOWED_ON_RESUME = (*MAY_INCREASE, *RESULT_NEUTRAL_KEYS, *MAY_CHANGE_ON_RESUME)


def may_change_on_resume(key: str) -> bool:
    """Whether a resumed run may have another value of this dotted key."""
    return _is_below(key, RESULT_NEUTRAL_KEYS) or _is_below(key, MAY_CHANGE_ON_RESUME)


def is_equal_in_comparisons(key: str) -> bool:
    """Whether runs that differ in this dotted key alone are of one configuration."""
    return _is_below(key, RESULT_NEUTRAL_KEYS) or _is_below(key, EQUAL_IN_COMPARISONS)


def _is_below(key: str, parents: Collection[str]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)

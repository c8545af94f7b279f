"""What training has cost: time, arithmetic as a plan counts it, and an estimate of energy with the way it was made."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from bigmodel.config.instantiate import instantiate
from bigmodel.inference.predictor import Predictor
from bigmodel.interfaces import Dataset, Task
from bigmodel.runtime.offline import offline
from bigmodel.training.tuning.cost import estimate_step_cost

_SAMPLES = 2  # that the arithmetic is counted on, which is proportional to them
_WATTS_OF_A_THREAD = 10.0
_WATTS = {  # thermal design power of a GPU, by what its name contains; the first that fits
    **{"B200": 1000, "GH200": 700, "H200": 700, "H100 PCIE": 350, "H100": 700, "H800": 700, "A100-PCIE": 250},
    **{"A100": 400, "A800": 400, "L40S": 350, "L40": 300, "L4": 72, "A40": 300, "A10": 150, "T4": 70, "V100": 300},
    **{"4090": 450, "4080": 320, "3090": 350, "3080": 320, "2080 TI": 250},
}
_THREADS = re.compile(r"(\d+) threads?")
_KWH = 3.6e6  # joules


class Energy(NamedTuple):
    """Estimated energy of a training, in kWh, and how it was estimated."""

    kwh: float
    method: str


def count_flops(predictor: Predictor, dataset: Dataset) -> float | None:
    """Return the FLOP of one update of the run; None for a model that has no shape without data."""
    batch_size = predictor.config.get("batch_size")
    if not isinstance(batch_size, int):
        return None
    with offline():
        task: Task = instantiate("task", predictor.config["task"], predictor.trust)
    model = copy.deepcopy(predictor.model).requires_grad_(True)
    try:
        cost = estimate_step_cost(model, task, dataset.sample_batch(_SAMPLES), (), 1)
    except RuntimeError:
        return None
    return cost.flops * batch_size / _SAMPLES


def estimate_energy(seconds: float, device: str, count: int, measured_watts: str) -> Energy | None:
    """Return time multiplied by the power of the devices; None for a GPU whose power is not known.

    `device` is as in `environment.json`; `measured_watts` the author's own figure for all devices, or empty.
    """
    if measured_watts:
        watts = float(measured_watts)
        return Energy(watts * seconds / _KWH, f"time multiplied by {watts:g} W, which the author has measured")
    if device.startswith("cpu"):
        found = _THREADS.search(device)
        threads = int(found[1]) if found else 1
        watts, source = _WATTS_OF_A_THREAD * threads, f"{_WATTS_OF_A_THREAD:g} W for each of {threads} threads"
    else:
        name = device.upper()
        known = next((value for part, value in _WATTS.items() if part in name), None)
        if known is None:
            return None
        watts, source = float(known * count), f"{known} W, the design power of the GPU, for each of {count}"
    return Energy(watts * seconds / _KWH, f"time multiplied by {source}; without cooling and the rest of the machine")


def trains_a_part(config: Mapping[str, Any]) -> bool:
    """Whether a part of the weights was frozen, so that less was computed than `count_flops` says."""
    init = config.get("init")
    lora = init.get("lora") if isinstance(init, Mapping) else None
    return isinstance(init, Mapping) and bool(init.get("freeze") or (isinstance(lora, Mapping) and lora.get("rank")))

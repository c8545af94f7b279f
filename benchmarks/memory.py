"""Peak memory of CIFAR-10 training against its parts: the uint8 data, the model's states, its activations, 300 MB.

python benchmarks/memory.py [--model resnet18] [--batch 128]

The peak is the operating system's, of a child process that trains a few batches, evaluates and saves, less what Python
takes that has imported torch and done nothing (its libraries alone can be more than 300 MB). Needs CIFAR-10 in
BIGMODEL_DATA_DIR. Exit code 1 if that is above the sum of the parts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MB = 1e6
ALLOWANCE = 300 * MB
TRAIN = [sys.executable, "-c", "from bigmodel.cli import train; train()"]  # what the console script does


def peak(words: list[str], folder: str) -> float:
    """Bytes, of the child alone; measured while this process is small, since a child starts with its parent's peak."""
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(words)}: exit code {child.returncode}\n{errors.read()}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def states_and_activations(model_name: str, batch: int) -> tuple[float, float]:
    """Bytes of weights, gradients and momentum, and of what autograd keeps for the backward pass of one batch."""
    import torch

    from bigmodel.models.cnn import CNN
    from bigmodel.models.resnet import ResNet

    shape, classes = (3, 32, 32), 10
    model = CNN(shape, classes) if model_name == "cnn" else ResNet(shape, classes)
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(torch.zeros(batch, *shape)).logsumexp(1).sum()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    activations = sum(kept.values())
    del loss
    return 3.0 * weights, float(activations)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("cnn", "resnet18"), default="resnet18")
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    folder = Path(os.environ.get("BIGMODEL_DATA_DIR", "data")).resolve()
    os.environ["BIGMODEL_DATA_DIR"] = str(folder)
    words = ["dataset=cifar10", f"model={arguments.model}", f"batch_size={arguments.batch}"]
    words += ["epochs=1", "limit_batches=3", "device=cpu"]
    with tempfile.TemporaryDirectory() as scratch:
        empty = peak([sys.executable, "-c", "import torch"], scratch)
        measured = peak([*TRAIN, *words], scratch)
    data = 50_000 * 3 * 32 * 32.0
    test = 10_000 * 3 * 32 * 32.0
    states, activations = states_and_activations(arguments.model, arguments.batch)
    allowed = data + test + states + activations + ALLOWANCE
    print(f"{arguments.model} on CIFAR-10, batch {arguments.batch}, MB")
    for name, size in (
        ("data, uint8 (train + test)", data + test),
        ("weights, gradients, momentum", states),
        ("activations of one batch", activations),
        ("allowance", ALLOWANCE),
        ("allowed", allowed),
        ("peak of the whole process", measured),
        ("python + import torch alone", empty),
        ("peak beyond python + torch", measured - empty),
    ):
        print(f"  {name:<30} {size / MB:8.0f}")
    ratio = (measured - empty) / allowed
    print(f"  peak beyond / allowed          {ratio:8.3f} (bar 1)")
    return 0 if ratio <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())

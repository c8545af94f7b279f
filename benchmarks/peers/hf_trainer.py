"""The Hugging Face Trainer, as its documentation shows it: a model that returns its loss, a dataset of dicts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from common import Pictures, Rate, model, options
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

given = options()
rate = Rate(given)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = model(given)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if given.channels_last:
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        logits = self.net(pixel_values)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Dicts(Pictures):
    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        image, label = super().__getitem__(index)
        return {"pixel_values": image, "labels": label}


class Counter(TrainerCallback):  # type: ignore[misc]
    def on_step_end(self, *_: object, **__: object) -> None:
        rate.step()


arguments = TrainingArguments(
    output_dir="hf_of_the_benchmark",
    per_device_train_batch_size=given.case.batch,
    max_steps=given.steps,
    learning_rate=0.01,
    optim="sgd",
    optim_args="momentum=0.9,nesterov=True",
    weight_decay=5e-4,
    dataloader_num_workers=2,
    dataloader_drop_last=True,
    bf16=given.precision == "bf16",
    use_cpu=True,
    save_strategy="no",
    report_to=[],
)
Trainer(model=Classifier(), args=arguments, train_dataset=Dicts(given), callbacks=[Counter()]).train()
rate.tell()

"""The Lightning Trainer, as its documentation shows it: a module, a loader with workers, a Trainer."""

from __future__ import annotations

import lightning
import torch
import torch.nn.functional as F
from common import Pictures, Rate, model, options

given = options()
rate = Rate(given)


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = model(given)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        inputs, labels = batch
        if given.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        outputs = self.net(inputs)
        loss = F.cross_entropy(outputs, labels)
        self.log("train_loss", loss)
        self.log("train_accuracy", (outputs.argmax(1) == labels).float().mean())
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        rate.step()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)


loader = torch.utils.data.DataLoader(
    Pictures(given), given.case.batch, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
)
trainer = lightning.Trainer(
    max_steps=given.steps,
    accelerator="cpu",
    precision="bf16-mixed" if given.precision == "bf16" else "32-true",
    default_root_dir="lightning_logs_of_the_benchmark",
)
trainer.fit(Classifier(), loader)
rate.tell()

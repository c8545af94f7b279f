"""timm's training script is not in its package: this is its inner loop, with its optimizer, schedule
and meters, over torch's loader."""

from __future__ import annotations

import timm.optim
import timm.scheduler
import timm.utils
import torch
from common import Pictures, Rate, model, options
from timm.loss import LabelSmoothingCrossEntropy

given = options()
rate = Rate(given)
net = model(given).train()
optimizer = timm.optim.create_optimizer_v2(net, opt="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4)
scheduler, _ = timm.scheduler.create_scheduler_v2(optimizer, "cosine", num_epochs=2, updates_per_epoch=given.steps)
loader = torch.utils.data.DataLoader(
    Pictures(given), given.case.batch, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
)
criterion, losses = LabelSmoothingCrossEntropy(0.0), timm.utils.AverageMeter()
for step, (inputs, labels) in enumerate(loader, 1):
    if given.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bf16"):
        loss = criterion(net(inputs), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.update(loss.item(), inputs.size(0))
    scheduler.step_update(num_updates=step, metric=losses.avg)
    rate.step()
    if step == given.steps:
        break
rate.tell()

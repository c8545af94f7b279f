"""The shortest loop that an expert writes by hand, on data that lies in memory, augmented a batch at a time."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from common import Rate, model, options

from bigmodel.optim.sgd import sgd

given = options()
with np.load(given.data) as file:
    pixels = torch.from_numpy(file["pixels"]).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(file["labels"]).long()
size, batch = given.case.shape[1], given.case.batch
mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (given.case.mean, given.case.std))
net, rate = model(given).train(), Rate(given)
optimizer = sgd(net, lr=0.01)
order = torch.randperm(len(labels))
for step in range(given.steps):
    chosen = order[step * batch : (step + 1) * batch]
    images = pixels[chosen]
    images = torch.where((torch.rand(batch) < 0.5)[:, None, None, None], images.flip(-1), images)
    rows, columns = torch.randint(9, (2, batch))
    windows = F.pad(images, (4, 4, 4, 4)).unfold(2, size, 1).unfold(3, size, 1)
    inputs = (windows[torch.arange(batch), :, rows, columns].float() / 255 - mean) / std
    if given.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bf16"):
        loss = F.cross_entropy(net(inputs), labels[chosen])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    rate.step()
rate.tell()

"""Tokens per second of this package's loop on text against a hand-written loop in the manner of nanoGPT's train.py.

python benchmarks/nanogpt.py [--steps 100] [--repeats 5] [--threads 1]

nanoGPT's CPU setting: 4 layers, 4 heads, 128 wide, 64 tokens, batches of 12, AdamW, gradients clipped to 1. Both run in
this process, in turns, on the same text. The hand-written model is what nanoGPT trains by default, GPT-2's without
biases, which is `layout=nanogpt` here. Exit code 1 if that is not as fast; the other layouts are for reading.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.datasets.text.continuous import TextLoader, text
from bigmodel.events import Saved
from bigmodel.interfaces import LoaderOptions
from bigmodel.models.gpt import GPT
from bigmodel.models.transformer import Layout
from bigmodel.optim.adam import adamw
from bigmodel.optim.schedules import Cosine
from bigmodel.runtime.device import Device
from bigmodel.tasks.language_modelling import LanguageModelling
from bigmodel.training.loop import LoopOptions, train
from bigmodel.training.state import TrainState

LAYERS, HEADS, WIDTH, CONTEXT, BATCH, TOKENS = 4, 4, 128, 64, 12, 65
LAYOUTS: tuple[Layout, ...] = ("nanogpt", "gpt2", "llama")
BAR = 1.0
NEVER = 10**9


class HandBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.c_fc, self.c_out = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(WIDTH, dim=2)
        q, k, v = (y.view(n, t, HEADS, c // HEADS).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(n, t, c))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x))))


class HandGPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(TOKENS, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.h = nn.ModuleList(HandBlock() for _ in range(LAYERS))
        self.ln_f, self.lm_head = nn.LayerNorm(WIDTH, bias=False), nn.Linear(WIDTH, TOKENS, bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return F.cross_entropy(self.lm_head(self.ln_f(x)).view(-1, TOKENS), targets.view(-1))


def by_hand(steps: int, tokens: Tensor) -> float:
    """Tokens per second."""
    model = HandGPT().train()
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    groups = [
        {"params": decayed, "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)

    def batch() -> tuple[Tensor, Tensor]:
        places = torch.randint(len(tokens) - CONTEXT, (BATCH,)).tolist()
        x = torch.stack([tokens[i : i + CONTEXT].long() for i in places])
        return x, torch.stack([tokens[i + 1 : i + 1 + CONTEXT].long() for i in places])

    began, (x, y) = perf_counter(), batch()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-4 + 9e-4 * (1 + math.cos(math.pi * step / steps)) / 2
        loss = model(x, y)
        x, y = batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0:
            loss.item()
    return steps * BATCH * CONTEXT / (perf_counter() - began)


class NoCheckpoints:
    def save(self, state: TrainState, passing: bool = False) -> None:
        """Save nothing."""

    def completed(self, wait: bool = False) -> list[Saved]:
        return []


def ours(steps: int, data: TextLoader, device: Device, layout: Layout) -> float:
    """Tokens per second."""
    model = GPT(TOKENS, CONTEXT, LAYERS, HEADS, WIDTH, layout=layout)
    optimizer = adamw(model, betas=(0.9, 0.99), weight_decay=0.1)
    job = TrainState(
        model=model,
        task=LanguageModelling(1.0),
        optimizers=[optimizer],
        schedule=Cosine(final=0.1),
        device=device,
        seed=0,
        steps=steps,
        clip_norm=1.0,
    )
    plan = LoopOptions(log_every=10, evaluate_every=NEVER, save_every=NEVER, monitor=None)
    began = perf_counter()
    train(job, data, plan, device, NoCheckpoints(), lambda _: None, lambda: False)
    return steps * BATCH * CONTEXT / (perf_counter() - began)


def measured(steps: int, repeats: int, device: Device) -> Iterator[tuple[str, float]]:
    generator = torch.Generator().manual_seed(0)
    letters = "".join(chr(48 + number) for number in range(TOKENS))
    content = "".join(letters[n] for n in torch.randint(TOKENS, (1_000_000,), generator=generator).tolist())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.txt"
        file.write_text(letters + content)
        dataset = text(str(file), "char", "", folder, CONTEXT, 0.1)
    data = dataset.loader(LoaderOptions(device.torch_device, BATCH, seed=0))
    tokens = torch.from_numpy(dataset.split_tokens["train"])
    for turn in range(repeats + 1):
        found = {"by hand": by_hand(steps, tokens)}
        found |= {layout: ours(steps, data, device, layout) for layout in LAYOUTS}
        if turn:  # the first fills caches
            yield from found.items()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    device = Device("cpu", threads=arguments.threads)
    device.configure_torch()
    rates: dict[str, list[float]] = {}
    for name, rate in measured(arguments.steps, arguments.repeats, device):
        rates.setdefault(name, []).append(rate)
    for name, found in rates.items():
        print(f"{name:>8} {statistics.median(found):9,.0f} tokens/s")
    ratio = statistics.median(one / hand for one, hand in zip(rates["nanogpt"], rates["by hand"], strict=True))
    print(f"nanogpt / by hand: {ratio:.3f} (bar {BAR})")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())

"""Sections about a model that says sounds sample by sample: how surprising clips were to it, and one that it says."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.datasets.audio.mu_law import mu_law_decode
from bigmodel.interfaces import Batch
from bigmodel.models.decoding.generation import as_decoder
from bigmodel.models.decoding.sampling import Sampling
from bigmodel.runs.report.charts import Series, line_chart
from bigmodel.runs.report.confusion import class_names
from bigmodel.runs.report.html import beside, section
from bigmodel.runs.report.media import card, player
from bigmodel.runs.report.predictions import Subject
from bigmodel.runs.report.svg import SvgWriter

_STRETCH = 100  # samples whose losses are one point of the chart
_SHORTEST_S = 0.1  # seconds of a said sound that is worth hearing


@dataclass(frozen=True)
class _Clip:
    loss: float
    index: int
    said: int  # class
    codes_T: Tensor
    losses_T: Tensor


class WaveInspector:
    """Keeps the most and the least surprising clip."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._rate = int(subject.spec["rate"])
        self._kept: dict[str, _Clip] = {}

    def add(self, batch: Batch, outputs: Tensor, first: int) -> None:
        targets_NT = batch.targets.long()
        losses_NT = F.cross_entropy(outputs.transpose(1, 2), targets_NT, ignore_index=-1, reduction="none")
        known_NT = targets_NT >= 0
        means_N = (losses_NT.sum(1) / known_NT.sum(1).clamp(min=1)).cpu()
        for title, index in (("hardest", int(means_N.argmax())), ("easiest", int(means_N.argmin()))):
            old, loss = self._kept.get(title), float(means_N[index])
            if old is None or (loss > old.loss) == (title == "hardest"):
                known_T = known_NT[index]
                codes_T, losses_T = targets_NT[index][known_T].cpu(), losses_NT[index][known_T].float().cpu()
                self._kept[title] = _Clip(loss, first + index, int(batch.inputs[index, 0]), codes_T, losses_T)

    def sections(self, writer: SvgWriter, where: str) -> str:
        if not self._kept:
            return ""
        names = self._names()
        shown = "".join(self._clip(writer, title, clip, names) for title, clip in self._kept.items())
        note = f"{where}: the clips that surprised the model most and least, of each the loss over its length."
        return section("Clips", shown, note=note) + self._draw_sound(names)

    def _names(self) -> list[str]:
        classes = self._subject.spec.get("classes")
        return class_names(classes, len(classes) if isinstance(classes, list) else 0)

    def _clip(self, writer: SvgWriter, title: str, clip: _Clip, names: list[str]) -> str:
        parts = torch.split(clip.losses_T, _STRETCH)
        ends = [min((1 + number) * _STRETCH, len(clip.losses_T)) / self._rate for number in range(len(parts))]
        losses = Series("loss", ends, [float(part.mean()) for part in parts])
        chart = line_chart(writer, f"The {title} clip", [losses], "second", lambda v: f"{v:.3g} nats", linear=True)
        facts = [("says", names[clip.said]), ("loss", f"{clip.loss:.3f} nats a sample")]
        facts += self._subject.origin(clip.index)
        return beside(chart, card(facts=facts, playing=player(mu_law_decode(clip.codes_T), self._rate)))

    def _draw_sound(self, names: list[str]) -> str:
        """Return the sound of what the model says for the class of the easiest clip, as far as there is time."""
        decoder = as_decoder(self._subject.model)
        clip = self._kept["easiest"]
        token_NT = torch.tensor([[clip.said]], device=self._subject.device.torch_device)
        cache = decoder.cache(1)
        sampling = Sampling()
        codes: list[int] = []
        deadline = monotonic() + self._subject.budget_s / 2
        with torch.inference_mode(), self._subject.device.autocast():
            while len(codes) < len(clip.codes_T) and monotonic() < deadline:
                token_NT = sampling.choose(decoder(token_NT, cache)[:, -1].float(), token_NT, [len(codes)])[:, None]
                codes.append(int(token_NT))
        if len(codes) < _SHORTEST_S * self._rate:
            return ""
        facts = [("says", names[clip.said]), ("seconds", f"{len(codes) / self._rate:.2f}")]
        said = card(facts=facts, playing=player(mu_law_decode(torch.tensor(codes)), self._rate))
        return section("A sound of the model", beside(said), note="Each sample was drawn from the model.")

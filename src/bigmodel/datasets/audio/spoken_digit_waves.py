"""The spoken digits of `spoken_digits` as waves, for models that generate them sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bigmodel.constraints import NonNegativeInt, Positive, PositiveInt, ProperFraction
from bigmodel.datasets.audio.mu_law import CODES, mu_law_encode
from bigmodel.datasets.audio.sound_files import fingerprint_sounds
from bigmodel.datasets.audio.spoken_digits import DIGITS, split_files
from bigmodel.datasets.audio.wav import read_wav
from bigmodel.datasets.loading.claims import check_claims
from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.interfaces import Batch
from bigmodel.padding import lengths, pad
from bigmodel.seeds import derive


@dataclass(frozen=True)
class RandomWaveCrop:
    """Random crop of `length` samples from each clip of a training batch, a function of (seed, step).

    Unless a crop begins with its clip, its first `context` samples are inputs only, not targets: a model whose
    receptive field is `context` lacks the samples before them.
    """

    length: PositiveInt
    context: NonNegativeInt

    def __post_init__(self) -> None:
        if self.context >= self.length:
            raise ValueError(f"context: must be less than length={self.length}, or nothing is predicted")

    def __call__(self, batch: Batch, seed: int, step: int) -> Batch:
        codes_NT = batch.targets
        device = batch.targets.device
        if codes_NT.shape[1] <= self.length:
            return batch
        generator = torch.Generator(device).manual_seed(derive(seed, "window", step))
        room_N = (lengths(codes_NT) - self.length).clamp(min=0)
        draw_N = torch.rand(len(codes_NT), device=device, generator=generator)
        first_N1 = (draw_N * (room_N + 1)).long().minimum(room_N)[:, None]
        position_T = torch.arange(self.length, device=device)
        window_NT = codes_NT.gather(1, first_N1 + position_T)
        unheard_NT = (first_N1 > 0) & (position_T < self.context)
        inputs_NT = torch.cat([batch.inputs[:, :1], window_NT[:, :-1]], dim=1)
        return Batch(inputs_NT, window_NT.masked_fill(unheard_NT, -1), batch.sample_ids)


def spoken_digit_waves(
    data_dir: str,
    rate: PositiveInt,
    seconds: Positive,
    val_fraction: ProperFraction,
    augment: RandomWaveCrop,
    num_classes: PositiveInt | None = None,
    num_codes: PositiveInt | None = None,
    bytes_per_token: Positive | None = None,
) -> TensorDataset:
    """Targets int16 (N, T): the mu-law codes of each clip, filled up with -1; inputs (N, T): the digit, then all codes
    but the last. Clips are cut after `seconds`.

    Raises:
        ConfigError: the numbers of classes, codes or bytes are not the data's.
        DataError: the recordings are missing or damaged.
    """
    properties = {"num_classes": len(DIGITS), "num_codes": CODES, "bytes_per_token": 1.0}
    check_claims({"num_classes": num_classes, "num_codes": num_codes, "bytes_per_token": bytes_per_token}, properties)
    files = split_files(data_dir)
    most = max(1, round(rate * seconds))
    splits: dict[str, tuple[Tensor, Tensor]] = {}
    for name, entries in files.items():
        codes_NT = pad([mu_law_encode(read_wav(path, rate)[:most]) for path, _ in entries])
        digits_N1 = torch.tensor([[digit] for _, digit in entries], dtype=torch.int16)
        splits[name] = torch.cat([digits_N1, codes_NT[:, :-1]], dim=1), codes_NT
    length = round(lengths(splits["train"][1]).float().mean().item())
    return TensorDataset(
        splits=splits,
        properties=properties,
        description=f"10 digits, waves of {length / rate:.2f} s on average, {CODES} codes",
        spec={
            "kind": "bigmodel.inference.processors.spoken.SpeechSynthesisProcessor",
            "classes": DIGITS,
            "rate": rate,
            "length": length,
        },
        fingerprint=fingerprint_sounds([path for entries in files.values() for path, _ in entries]),
        val_fraction=val_fraction,
        augment=augment,
    )

"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): beside a frozen linear layer the product of two small
matrices is trained, and added to the layer's weights in the end.

I inputs and O outputs of a layer, R the rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import NonNegativeInt, Positive
from bigmodel.models.weights.name_patterns import match_names

__all__ = ["LoRA", "merge_lora"]


@dataclass(frozen=True)
class LoRA:
    """Which linear layers are adapted, by patterns of their names, and how. With rank 0 none is.

    All else is frozen but the parameters that `train` matches, as a new head; a layer whose weights are among them is
    trained as it is.
    """

    rank: NonNegativeInt = 0
    alpha: Positive = 16.0
    layers: str | Sequence[str] = "*"
    train: str | Sequence[str] | None = None

    def adapt(self, model: nn.Module, began: bool = False) -> str:
        """Put the matrices into the model, which computes what it did; in words. A run that `began` before keeps a rank
        that would be refused.

        Raises:
            ValueError: a pattern matches nothing, or leaves nothing to adapt, or the rank is above a layer's width.
        """
        try:
            besides = match_names(self.train, [name for name, _ in model.named_parameters()], "parameter")
        except ValueError as error:
            raise ValueError(f"train: {error}") from error
        linear = {name: module for name, module in model.named_modules() if type(module).forward is nn.Linear.forward}
        try:
            adapted = [
                name for name in match_names(self.layers, linear, "linear layer") if f"{name}.weight" not in besides
            ]
        except ValueError as error:
            raise ValueError(f"layers: {error}") from error
        if not adapted:
            raise ValueError("train: trains every one of these layers as it is; none is left to adapt")
        for name in adapted:
            width = min(linear[name].in_features, linear[name].out_features)
            if self.rank > width and not began:
                shape = f"{linear[name].in_features} to {linear[name].out_features}"
                raise ValueError(
                    f"rank: {self.rank} is above the width of {name} ({shape}), where {width} is all there is; "
                    f"lower it, leave the layer out of init.lora.layers, or train it whole: init.lora.train={name}.*"
                )
        model.requires_grad_(False)
        for name in adapted:
            _adapt(linear[name], self.rank, self.alpha)
        for name in besides:
            model.get_parameter(name).requires_grad_(True)
        sizes = [p.numel() for p in model.parameters() if p.requires_grad]
        layers = f"{len(adapted)} linear layer{'' if len(adapted) == 1 else 's'}"
        return f"{layers} with matrices of rank {self.rank}; {sum(sizes):,} weights are trained"


class LoRALinear(nn.Linear):
    """A linear layer while it is adapted. Its own tensors keep their names; `weight` is the sum, for modules that read
    it without a call.
    """

    lora_a: nn.Parameter  # (R, I)
    lora_b: nn.Parameter  # (O, R)
    lora_scale: Tensor

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return _sum(self._frozen, self.lora_a, self.lora_b, self.lora_scale)

    @property
    def _frozen(self) -> Tensor:
        frozen = self._parameters["weight"]
        assert frozen is not None
        return frozen

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O). The sum is not made: a frozen weight costs no gradient of its size."""
        low = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return F.linear(x, self._frozen, self.bias) + self.lora_scale * low


def _adapt(layer: nn.Linear, rank: int, alpha: float) -> None:
    weight = layer.weight
    layer.lora_a = nn.Parameter(weight.new_empty(rank, layer.in_features))
    layer.lora_b = nn.Parameter(weight.new_zeros(layer.out_features, rank))  # at first the layer computes what it did
    layer.register_buffer("lora_scale", weight.new_tensor(alpha / rank))
    nn.init.normal_(layer.lora_a, std=layer.in_features**-0.5)
    layer.__class__ = LoRALinear


def merge_lora(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model of which some layers are adapted, as those of the plain model; others are as they are.

    Raises:
        ValueError: a layer lacks what it is adapted by, or the shapes do not go together.
    """
    plain = dict(weights)
    for name in weights:
        layer = name.removesuffix("lora_scale")
        if layer == name:
            continue
        try:
            a, b, scale = (plain.pop(f"{layer}{each}") for each in ("lora_a", "lora_b", "lora_scale"))
            if plain[f"{layer}weight"].shape != (b.shape[0], a.shape[1]) or a.shape[0] != b.shape[1] or scale.ndim:
                raise ValueError(f"{layer}lora_a, lora_b: are not of the shape of {layer}weight")
        except (KeyError, IndexError) as error:
            raise ValueError(f"{name}: has no weight, lora_a and lora_b beside it, of two dimensions each") from error
        plain[f"{layer}weight"] = _sum(plain[f"{layer}weight"], a, b, scale)
    return plain


def _sum(weight: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    return weight + scale * (b @ a)

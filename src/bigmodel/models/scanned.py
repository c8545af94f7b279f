"""Recurrent layers written as scans over time.

An exporter unrolls torch's own recurrent layers, which fixes the length of their input. A scan is one operation of any
length.

N sequences, T steps, C channels in, H hidden channels, G = 3 H or 4 H channels of the gates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ScannedRNN", "replace_recurrent_layers"]

State = tuple[Tensor, ...]


class ScannedRNN(nn.Module):
    """Equivalent of a unidirectional `batch_first` GRU or LSTM with zero initial states, in evaluation mode."""

    def __init__(self, layer: nn.GRU | nn.LSTM) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x_NTC: Tensor) -> tuple[Tensor, None]:
        """Return the outputs (N, T, H) of the last layer, and None in place of torch's states."""
        from torch._higher_order_ops.scan import scan  # imports the compiler, which only an export needs

        for index in range(self.layer.num_layers):
            w_in, w_hidden, *biases = (getattr(self.layer, name) for name in self.layer._all_weights[index])
            b_in, b_hidden = biases or (None, None)
            gates_TNG = F.linear(x_NTC, w_in, b_in).transpose(0, 1)
            zero_NH = torch.zeros_like(gates_TNG[0, :, : self.layer.hidden_size])
            if isinstance(self.layer, nn.GRU):
                _, out_TNH = scan(_gru_step(w_hidden, b_hidden), (zero_NH,), gates_TNG, dim=0)
            else:
                _, out_TNH = scan(_lstm_step(w_hidden, b_hidden), (zero_NH, zero_NH.clone()), gates_TNG, dim=0)
            x_NTC = out_TNH.transpose(0, 1)
        return x_NTC, None


def _gru_step(weight: Tensor, bias: Tensor | None) -> Callable[[State, Tensor], tuple[State, Tensor]]:
    def step(state: State, gates_NG: Tensor) -> tuple[State, Tensor]:
        (h_NH,) = state
        reset_in, update_in, new_in = gates_NG.chunk(3, -1)
        reset_h, update_h, new_h = F.linear(h_NH, weight, bias).chunk(3, -1)
        reset_NH, update_NH = torch.sigmoid(reset_in + reset_h), torch.sigmoid(update_in + update_h)
        new_NH = torch.tanh(new_in + reset_NH * new_h)
        h_NH = new_NH + update_NH * (h_NH - new_NH)
        return (h_NH,), h_NH.clone()

    return step


def _lstm_step(weight: Tensor, bias: Tensor | None) -> Callable[[State, Tensor], tuple[State, Tensor]]:
    def step(state: State, gates_NG: Tensor) -> tuple[State, Tensor]:
        h_NH, c_NH = state
        input_gate, forget, cell, output_gate = (gates_NG + F.linear(h_NH, weight, bias)).chunk(4, -1)
        c_NH = forget.sigmoid() * c_NH + input_gate.sigmoid() * cell.tanh()
        h_NH = output_gate.sigmoid() * c_NH.tanh()
        return (h_NH, c_NH), h_NH.clone()

    return step


def replace_recurrent_layers(model: nn.Module) -> nn.Module:
    """Replace, in place, each recurrent layer that `ScannedRNN` can express; return the model."""
    for name, child in model.named_children():
        if isinstance(child, (nn.GRU, nn.LSTM)):
            if child.batch_first and not child.bidirectional and not getattr(child, "proj_size", 0):
                setattr(model, name, ScannedRNN(child))
        else:
            replace_recurrent_layers(child)
    return model

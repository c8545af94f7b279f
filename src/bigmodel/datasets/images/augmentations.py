"""Random changes of image batches, one function each: no per-sample Python, and the memory format stays as it was.

Images are (N, C, H, W), dense in either of torch's two memory formats. Whole images and whole rows are copied by
`index_select`, which on a CPU is many times faster than indexing with tensors or choosing pixel by pixel.
"""

from __future__ import annotations

import math
import random
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_GOLDEN, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64, as int64


def channels_last(images_NCHW: Tensor) -> bool:
    """Return whether the images lie in channels-last memory format, and not in the contiguous one as well."""
    return images_NCHW.is_contiguous(memory_format=torch.channels_last) and not images_NCHW.is_contiguous()


def select_images(images_NCHW: Tensor, indices_N: Tensor) -> Tensor:
    """Copy the images with these indices."""
    if channels_last(images_NCHW):
        return images_NCHW.permute(0, 2, 3, 1).index_select(0, indices_N).permute(0, 3, 1, 2)
    return images_NCHW.index_select(0, indices_N)


def flip(images_NCHW: Tensor, flipped_N: Tensor) -> Tensor:
    """Mirror left to right the images for which `flipped_N` is true."""
    count = len(images_NCHW)
    both = torch.cat([images_NCHW, images_NCHW.flip(3)])
    return select_images(both, torch.arange(count, device=images_NCHW.device) + count * flipped_N)


def hash_coin_flips(samples_N: Tensor, key: int) -> Tensor:
    """Flip a fair coin per sample number, bool (N,): a hash of (key, number) by splitmix64 (Steele et al. 2014)."""
    mixed = samples_N * _GOLDEN + key
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        mixed = (mixed ^ (mixed >> shift & (1 << 64 - shift) - 1)) * factor
    return mixed & 1 == 1


def crop(
    images_NCHW: Tensor, pad: int, padding: Literal["zero", "reflect"], generator: torch.Generator | None
) -> Tensor:
    """Pad each image by `pad` pixels on every side, and cut its size out at a random place, uniformly."""
    count, channels, height, width = images_NCHW.shape
    device = images_NCHW.device
    top_N, left_N = torch.randint(2 * pad + 1, (2, count), device=device, generator=generator)
    padded = pad_images(images_NCHW, pad, padding)
    if channels_last(images_NCHW):  # a row of an image is one piece of memory, channels and all
        planes = padded.permute(0, 2, 3, 1)
        depth = channels
    else:
        planes = padded.flatten(0, 1)
        depth = 1
        top_N, left_N = top_N.repeat_interleave(channels), left_N.repeat_interleave(channels)
    tall = height + 2 * pad
    wide = (width + 2 * pad) * depth
    row = width * depth
    first_P = torch.arange(len(planes), device=device) * tall + top_N
    starts = (first_P[:, None] + torch.arange(height, device=device)) * wide + (left_N * depth)[:, None]
    flat = planes.contiguous().view(-1)
    rows = flat.as_strided((len(flat) - row + 1, row), (1, 1)).index_select(0, starts.flatten())
    if depth == 1:
        return rows.view(images_NCHW.shape)
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def pad_images(images_NCHW: Tensor, pad: int, padding: Literal["zero", "reflect"]) -> Tensor:
    """Pad to (N, C, H + 2 pad, W + 2 pad), with black or with the image mirrored at its edge (pad < H, W)."""
    padded = F.pad(images_NCHW, (pad,) * 4)
    if padding == "reflect":  # torch's own takes no uint8
        for axis in (2, 3):
            size = padded.shape[axis]
            before = padded.narrow(axis, pad + 1, pad)
            after = padded.narrow(axis, size - 2 * pad - 1, pad)
            padded.narrow(axis, 0, pad).copy_(before.flip(axis))
            padded.narrow(axis, size - pad, pad).copy_(after.flip(axis))
    return padded


def random_resized_crop(pixels_NCHW: Tensor, smallest: float, generator: torch.Generator | None) -> Tensor:
    """Cut a random part of each uint8 image, at least `smallest` of its area, and resize it bilinearly.

    The fraction is uniform, the ratio of the sides log-uniform from 3:4 to 4:3, then limited to the image. The place is
    uniform.
    """
    count, _, height, width = pixels_NCHW.shape
    share_N, ratio_N, top_N, left_N = torch.rand((4, count), device=pixels_NCHW.device, generator=generator)
    area_N = (smallest + (1 - smallest) * share_N) * height * width
    ratio_N = torch.exp((2 * ratio_N - 1) * math.log(4 / 3))
    high_N = (area_N / ratio_N).sqrt().clamp(1, height)
    wide_N = (area_N * ratio_N).sqrt().clamp(1, width)
    scale_N2 = torch.stack([wide_N / width, high_N / height], 1)
    shift_N2 = torch.stack([left_N, top_N], 1).mul(2).sub(1) * (1 - scale_N2)  # -1 to 1 is from border to border
    theta_N23 = torch.cat([torch.diag_embed(scale_N2), shift_N2[:, :, None]], 2)
    grid = F.affine_grid(theta_N23, list(pixels_NCHW.shape), align_corners=False)
    changed = F.grid_sample(pixels_NCHW.float(), grid, padding_mode="border", align_corners=False)
    changed = changed.add_(0.5).clamp_(0, 255).to(torch.uint8)
    return changed.contiguous(memory_format=torch.channels_last) if channels_last(pixels_NCHW) else changed


def colour(pixels_NCHW: Tensor, strength: float, generator: torch.Generator | None) -> Tensor:
    """Change brightness, contrast and saturation of each uint8 image, and at times posterize or solarize it.

    Inspired by RandAugment (Cubuk et al. 2020), but not it: no geometry, no drawn sequence of operations. For each
    image, with s = `strength` from 0 to 1:
    - brightness: pixels times a factor from [1 - s, 1 + s];
    - contrast: the distance from the image's mean, then saturation: that from the pixel's mean over the channels,
      each times such a factor of its own (one channel has no saturation to change);
    - with probability s / 4 posterize: keep only the upper 4 to 7 bits;
    - with probability s / 4 solarize: invert values above a threshold from [128, 255]. An image may get both.
    """
    count = len(pixels_NCHW)
    device = pixels_NCHW.device
    factors_3N111 = 1 + strength * (2 * torch.rand((3, count, 1, 1, 1), device=device, generator=generator) - 1)
    chosen_2N111 = torch.rand((2, count, 1, 1, 1), device=device, generator=generator) < strength / 4
    bits_N111 = torch.randint(1, 5, (count, 1, 1, 1), device=device, generator=generator)
    threshold_N111 = torch.randint(128, 256, (count, 1, 1, 1), device=device, generator=generator)

    brightness, contrast, saturation = factors_3N111
    changed = pixels_NCHW.float()
    grey_N1HW = changed.mean(1, keepdim=True)
    mean_N111 = grey_N1HW.mean((2, 3), keepdim=True)
    scale = brightness * contrast  # the three in one: s b c x + (1 - s) b c grey + (1 - c) b mean, and 0.5 to round
    grey_N1HW.mul_(scale * (1 - saturation)).add_(brightness * (1 - contrast) * mean_N111 + 0.5)
    pixels_NCHW = changed.mul_(scale * saturation).add_(grey_N1HW).clamp_(0, 255).to(torch.uint8)
    posterised, solarised = chosen_2N111
    kept = torch.where(posterised, 256 - (1 << bits_N111), 255).to(torch.uint8)
    limit = torch.where(solarised, threshold_N111, 255).to(torch.uint8)
    pixels_NCHW &= kept
    inverted = (pixels_NCHW > limit).view(torch.uint8).neg_()  # 255 where it is to be, for an exclusive or
    return pixels_NCHW.bitwise_xor_(inverted)


def cutout(inputs_NCHW: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    """Set a square of `size` pixels to 0, the mean of normalized images, in place (DeVries & Taylor 2017).

    Its center is any pixel, as in the paper, so at the border less than the square is erased.
    """
    count, _, height, width = inputs_NCHW.shape
    device = inputs_NCHW.device
    spans = []
    for length in (height, width):
        first_N1 = torch.randint(length, (count, 1), device=device, generator=generator) - size // 2
        place_L = torch.arange(length, device=device)
        spans.append((place_L >= first_N1) & (place_L < first_N1 + size))
    rows_NH, columns_NW = spans
    shown_N1HW = ~(rows_NH[:, None, :, None] & columns_NW[:, None, None, :])
    return inputs_NCHW.mul_(shown_N1HW.to(inputs_NCHW.dtype))


def mixup(inputs_NCHW: Tensor, probs_NC: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Blend each sample, times `weight`, with the previous one of the batch, and their targets (Zhang et al. 2018).

    The paper draws the other sample; batches are in random order, so the previous one is random too.
    """
    return _blend(inputs_NCHW, weight), _blend(probs_NC, weight)


def cutmix(inputs_NCHW: Tensor, probs_NC: Tensor, weight: float, draw: random.Random) -> tuple[Tensor, Tensor]:
    """Paste a box of 1 - `weight` of the area from the previous sample, in place (Yun et al. 2019).

    Targets are blended by area. The box lies at the same random place in all images of a batch, cut at the border.
    """
    height, width = inputs_NCHW.shape[2:]
    share = math.sqrt(1 - weight)
    (top, bottom), (left, right) = (_span(length, round(length * share), draw) for length in (height, width))
    box = inputs_NCHW[:, :, top:bottom, left:right]
    box.copy_(box.roll(1, 0))
    return inputs_NCHW, _blend(probs_NC, 1 - (bottom - top) * (right - left) / (height * width))


def _blend(tensor: Tensor, weight: float) -> Tensor:
    return torch.lerp(torch.cat([tensor[-1:], tensor[:-1]]), tensor, weight)


def _span(length: int, size: int, draw: random.Random) -> tuple[int, int]:
    """Return the bounds of a span of `size` around a random center, clipped to the image."""
    first = draw.randrange(length) - size // 2
    return max(0, first), min(length, first + size)

"""Use an exported ONNX model with numpy, onnxruntime and Pillow alone, by following the steps that the file carries.

    python run_exported.py model.onnx INPUT

INPUT is a picture, a wav file, a text, or a row of a table as JSON ({"age": 39, "job": "clerk"}). Prints the answer as
JSON. docs/export.md defines every step; those that no classifier needs are not here.
"""

import json
import re
import sys
import wave

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def answer(model: str, given: str) -> dict:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    card = json.loads(session.get_modelmeta().custom_metadata_map["bigmodel"])
    value = given
    for step in card["preprocess"]:
        value = PREPROCESS[step["op"]](value, step)
    (value,) = session.run(["logits"], {"input": value})
    for step in card["postprocess"]:
        value = POSTPROCESS[step["op"]](value, step)
    return value


def decode_image(file, step):
    image = Image.open(file)
    image.draft(step["mode"], tuple(step["jpeg_draft"]))
    image = ImageOps.exif_transpose(image)
    behind, span = step["background"], step["value_range"]
    if image.mode.startswith("I;16") and span is None:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif (image.mode in ("I", "F") or image.mode.startswith("I;16")) and span is not None:
        if span == "type":
            span = (0, 1) if image.mode == "F" else (0, 65535)  # of PNG and PGM; other files of 32 bits: 2**31 - 1
        levels = np.clip((np.asarray(image, np.float64) - span[0]) * (255 / (span[1] - span[0])), 0, 255)
        image = Image.fromarray(np.rint(levels).astype(np.uint8))
    elif behind is not None and image.has_transparency_data:
        color = behind if isinstance(behind, str) else tuple(behind)
        paper = Image.new("RGBA", image.size, color)
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert(step["mode"])


def fit(image, step):
    """crop_to_aspect and resize are one call of Pillow's: it resizes from a box with fractions of pixels."""
    if step["op"] == "crop_to_aspect":
        return image
    return np.asarray(ImageOps.fit(image, (step["width"], step["height"]), Image.Resampling.BILINEAR))


def normalize(pixels, step):
    return ((pixels - np.array(step["mean"])) / np.array(step["std"])).astype(np.float32)


def select_columns(row, step):
    row = json.loads(row)
    return {name: row[name] for name in (*step["numbers"], *step["categories"])}


def strip(value, step):
    if isinstance(value, str):
        return value.strip(step["characters"])
    return {name: "" if text is None else str(text).strip(step["characters"]) for name, text in value.items()}


def mark_missing(row, step):
    return {name: step["as"] if text in step["values"] else text for name, text in row.items()}


def standardize(row, step):
    for name, mean, std in zip(step["columns"], step["mean"], step["std"], strict=True):
        row[name] = (float(row[name]) - mean) / std if row[name] else step["missing"]
    return row


def encode_categories(row, step):
    for name, values in step["values"].items():
        row[name] = step["first"] + values.index(row[name]) if row[name] in values else step["unknown"]
    return row


def tokenize(text, step):
    tokenizer = step["tokenizer"]
    if tokenizer["name"] == "byte":
        return list(text.encode("utf-8"))
    if tokenizer["name"] == "char":
        return [tokenizer["characters"].index(character) for character in text]
    assert tokenizer["name"] == "word", "byte pairs and SMILES need a library of their own"
    assert tokenizer.get("rule", 1) == 1 or text.isascii(), "for other scripts see datasets/word_tokenizer.py"
    numbers = {word: number for number, word in enumerate(tokenizer["words"], 1)}
    return [numbers.get(word, 0) for word in re.findall(r"\w+|[^\w\s]", text.lower())]


def decode_sound(file, step):
    with wave.open(file) as sound:
        assert sound.getsampwidth() == 2, "this script reads 16 bits only"
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768
        return samples.reshape(-1, sound.getnchannels()).mean(1).astype(np.float32), sound.getframerate()


def resample(sound, step):
    samples, rate = sound
    if rate == step["rate"]:
        return samples
    common = np.gcd(rate, step["rate"])
    blocks = -(-len(samples) * common // rate)
    spectrum = np.fft.rfft(samples, blocks * rate // common)
    wanted = max(1, round(len(samples) * step["rate"] / rate))
    return np.fft.irfft(spectrum, blocks * step["rate"] // common)[:wanted] * (step["rate"] / rate)


def log_mel(samples, step):
    window, hop, mels, rate = step["window"], step["hop"], step["mels"], step["rate"]
    padded = np.pad(samples, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][: len(samples) // hop + 1]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (step["low_hz"], step["high_hz"]))
    corners = 700 * (10 ** (np.linspace(low, high, mels + 2) / 2595) - 1)
    hertz = np.linspace(0, rate / 2, window // 2 + 1)[:, None]
    rising = (hertz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hertz) / (corners[2:] - corners[1:-1])
    bands = np.maximum(np.minimum(rising, falling), 0)
    return np.log(np.maximum(power @ bands, step["least_energy"]))


def normalize_clip(frames, step):
    return (frames - frames.mean()) / max(frames.std(), step["least_std"])


def fit_length(frames, step):
    missing = max(0, step["length"] - len(frames))
    return np.pad(frames[: step["length"]], ((0, missing), (0, 0)), constant_values=frames.min())


def batch(value, step):
    value = np.asarray(value)
    if step.get("layout") == "NCHW":
        value = np.moveaxis(value.reshape(*value.shape[:2], -1), 2, 0)
    if step.get("layout") == "N1TM":
        value = value[None]
    return value[None].astype(step["dtype"])


def softmax(logits, step):
    powers = np.exp(logits - logits.max(step["axis"], keepdims=True))
    return powers / powers.sum(step["axis"], keepdims=True)


def label(value, step):
    (best,), (probs,) = value
    return {"class": step["classes"][best], "probability": float(probs[best])}


def unstandardize(outputs, step):
    values = outputs[0] * np.array(step["std"]) + np.array(step["mean"])
    return dict(zip(step["columns"], values.tolist(), strict=True))


def ctc_greedy(logits, step):
    best = logits[0].argmax(1)
    kept = [n for n, before in zip(best, [-1, *best[:-1]], strict=True) if n not in (before, step["blank"])]
    return {"greedy": "".join(step["characters"][n - 1] for n in kept)}


PREPROCESS = {
    "decode_image": decode_image,
    "crop_to_aspect": fit,
    "resize": fit,
    "scale": lambda pixels, step: pixels * step["factor"],
    "normalize": normalize,
    "select_columns": select_columns,
    "strip": strip,
    "mark_missing": mark_missing,
    "standardize": standardize,
    "encode_categories": encode_categories,
    "concatenate": lambda row, step: [row[name] for name in step["columns"]],
    "tokenize": tokenize,
    "truncate": lambda tokens, step: tokens[: step["length"]],
    "decode_sound": decode_sound,
    "resample": resample,
    "log_mel": log_mel,
    "normalize_clip": normalize_clip,
    "fit_length": fit_length,
    "batch": batch,
}
POSTPROCESS = {
    "softmax": softmax,
    "argmax": lambda probs, step: (probs.argmax(step["axis"]), probs),
    "label": label,
    "sigmoid": lambda logits, step: 1 / (1 + np.exp(-logits)),
    "name_columns": lambda probs, step: dict(zip(step["names"], probs[0].tolist(), strict=True)),
    "unstandardize": unstandardize,
    "ctc_greedy": ctc_greedy,
}

if __name__ == "__main__":
    print(json.dumps(answer(*sys.argv[1:])))

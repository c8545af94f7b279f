"""Convert the UCI digits that scikit-learn carries into `src/bigmodel/datasets/images/digits.safetensors`. Run once.

    pip install scikit-learn safetensors && python scripts/make_digits.py

The 17 grey levels are spread over 0..255. A fifth of each class, drawn once with a fixed seed, is the test split.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

TARGET = Path(__file__).parents[1] / "src/bigmodel/datasets/images/digits.safetensors"


def main() -> None:
    raw = load_digits()
    pixels = np.rint(raw.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = raw.target.astype(np.uint8)
    rng = np.random.default_rng(0)
    by_class = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    test = np.concatenate([numbers[: round(len(numbers) / 5)] for numbers in by_class])
    is_test = np.isin(np.arange(len(labels)), test)
    tensors = {
        "train_pixels": pixels[~is_test],
        "train_labels": labels[~is_test],
        "test_pixels": pixels[is_test],
        "test_labels": labels[is_test],
    }
    about = {
        "source": "UCI Machine Learning Repository, Optical Recognition of Handwritten Digits, doi 10.24432/C50P49",
        "authors": "E. Alpaydin, C. Kaynak (1998)",
        "licence": "CC BY 4.0",
        "changes": "test part only; grey levels spread from 0..16 to 0..255; split into training and test",
    }
    save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, TARGET, metadata=about)
    train = tensors["train_pixels"] / 255
    print({name: t.shape for name, t in tensors.items()}, f"mean {train.mean():.4f} std {train.std():.4f}")


if __name__ == "__main__":
    main()

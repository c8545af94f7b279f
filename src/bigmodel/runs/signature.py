"""Sign a folder that is given away, and check who signed one that is taken in (extra `sign`: model-signing)."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

from bigmodel.errors import ConfigError, StorageError
from bigmodel.formatting import first_line
from bigmodel.safe_files import is_there, open_regular, refuse_foreign_files

SIGNATURE = "model.sig"
_LARGEST = 1 << 24  # bytes of a signature, which names every file
SIGNED_BY = "BIGMODEL_SIGNED_BY"  # a file with the public key of whom the user trusts


def require_signing(key: str) -> None:
    """Raise ConfigError where the package or the key is missing."""
    if importlib.util.find_spec("model_signing") is None:
        raise ConfigError("sign: needs model-signing; pip install 'bigmodel-train[sign]'")
    if not Path(key).is_file():
        raise ConfigError(f"sign: there is no file '{key}'; give the private key of an elliptic curve, in PEM")


def sign_folder(folder: Path, key: str) -> None:
    """Write a signature of all files, the manifest too, into the folder. Raises ConfigError for a key that is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from model_signing import hashing, signing

        try:
            hashes = hashing.Config().set_ignored_paths(paths=[folder / SIGNATURE])
            config = signing.Config().use_elliptic_key_signer(private_key=Path(key)).set_hashing_config(hashes)
            config.sign(folder, folder / SIGNATURE)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"sign: '{key}' cannot be used: {first_line(error)}") from error


def check_signature(folder: Path, shown: str) -> list[str]:
    """Check a folder that was shared by the key that the environment names; return a warning where it names none.

    Raises:
        ConfigError: the key or the package is missing.
        StorageError: the folder is not signed by that key, or was changed since.
    """
    key = os.environ.get(SIGNED_BY, "")
    signature = folder / SIGNATURE
    if not key:
        unknown = f"{shown}: is signed; set {SIGNED_BY}=KEY.pub to check by whom"
        return [unknown] if is_there(signature) else []
    if not is_there(signature):
        raise StorageError(f"{shown}: is not signed, and {SIGNED_BY} names a key; get a signed one, or unset it")
    if importlib.util.find_spec("model_signing") is None:
        raise ConfigError(f"{SIGNED_BY}: needs model-signing; pip install 'bigmodel-train[sign]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from model_signing import hashing, verifying

        try:
            hashes = hashing.Config().set_ignored_paths(paths=[signature])
            config = verifying.Config().use_elliptic_key_verifier(public_key=Path(key)).set_hashing_config(hashes)
        except (ValueError, TypeError, OSError) as error:
            raise ConfigError(f"{SIGNED_BY}: '{key}' cannot be used: {first_line(error)}") from error
        try:
            refuse_foreign_files(folder)  # model-signing would wait for a pipe
            open_regular(signature, _LARGEST).close()
            config.verify(folder, signature)
        except Exception as error:  # a stranger's signature may be anything
            raise StorageError(f"{shown}: is not what {key} has signed: {first_line(error)}") from error
    return []

"""Licenses: those of the built-in datasets, which their YAML states, and what mixing them asks of the weights' own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from bigmodel.config.location import choices_of_target
from bigmodel.errors import ConfigError, suggest
from bigmodel.formatting import truncate
from bigmodel.runs.choice_names import choice_name

HUB = (  # the identifiers that the hub's cards may have
    *("apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0"),
    *("bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause"),
    *("bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    *("cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0"),
    *("etalab-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1"),
    *("lgpl-3.0", "isc", "intel-research", "lppl-1.3c", "ms-pl", "mpl-2.0", "odc-by", "odbl", "openmdw-1.0"),
    *("openrail++", "osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl", "lgpl-lr"),
    *("deepfloyd-if-license", "fair-noncommercial-research-license", "llama2", "llama3", "llama3.1", "llama3.2"),
    *("llama3.3", "llama4", "gemma", "unknown", "other"),
)
NONE_STATED = "none stated by its authors"
_LINE = re.compile(r"^# License: (.+)$", re.MULTILINE)
_DATA_KEYS = ("name", "path", "train", "val", "test", "file", "files", "source", "package")  # what tells data apart
_SHARE_ALIKE = re.compile(r"-sa-|gpl|^odbl$|^gfdl$|^mpl|^eupl|^osl")


class DataLicense(NamedTuple):
    """The license of a dataset of which `name` is the choice in YAML; `text` None where the user's own data has none
    that this package could know.
    """

    name: str
    text: str | None
    summary: str  # the first comment of its YAML
    source: str | None


def data_license(node: Mapping[str, Any]) -> DataLicense:
    """Return what the YAML of a run's dataset states; other files than it names are data of the user's own."""
    name = choice_name("dataset", node)
    text = choices_of_target("dataset", str(node["_target_"])).get(name)
    if text is None:
        return DataLicense(name, None, "", None)
    stated, keys = _LINE.search(text), yaml.safe_load(text)
    summary = text.partition("\n")[0].lstrip("# ").partition("; goes with")[0].rstrip(".")
    source = keys.get("source")
    is_same = all(node.get(key) == keys[key] for key in _DATA_KEYS if key in keys)
    if stated is None or not is_same:
        return DataLicense(name, None, "", None)
    return DataLicense(name, stated[1], summary, source if isinstance(source, str) else None)


def check_hub_license(key: str, text: str) -> None:
    """Raise ConfigError unless the hub knows the license."""
    if text not in HUB or text == "unknown":
        raise ConfigError(
            f"{key}: the hub has no license '{truncate(text)}'; {_nearest(text)}; for another one set license: other "
            "and license_name"
        )


def _nearest(text: str) -> str:
    hint = suggest(text, HUB)
    return hint if hint.startswith("did") else "as apache-2.0, mit, cc-by-4.0 or cc-by-nc-4.0"


def is_noncommercial(text: str) -> bool:
    return "-nc" in text or "noncommercial" in text


def is_share_alike(text: str) -> bool:
    return _SHARE_ALIKE.search(text) is not None


def is_no_derivatives(text: str) -> bool:
    return "-nd" in text


def told_of_data(weights: str, data: str) -> list[str]:
    """Return a line for each thing that the data's license asks and the weights' may not keep."""
    lines = []
    if data == NONE_STATED:
        lines.append("the data's authors state no license, so nobody has given leave to use it")
    if is_noncommercial(data) and not is_noncommercial(weights):
        lines.append(f"the data ({data}) is for non-commercial use only, and {weights} lets the weights be sold")
    if is_share_alike(data) and _plain(data) != weights:
        lines.append(
            f"the data ({data}) asks for the same license of what is made of it, and the weights have {weights}"
        )
    if is_no_derivatives(data):
        lines.append(f"the data ({data}) may not be changed and passed on; none of it is in this folder")
    return lines


def refuse_base(weights: str, base: str, source: str) -> None:
    """Raise ConfigError where weights that began as others, of license `base`, may not have the license `weights`."""
    if is_no_derivatives(base):
        raise ConfigError(f"license: the weights began as {source}, whose {base} forbids to pass on what is made of it")
    if is_noncommercial(base) and not is_noncommercial(weights):
        raise ConfigError(
            f"license: the weights began as {source}, which {base} gives for non-commercial use only; {weights} allows "
            f"more; set license: {base} in the card"
        )
    if is_share_alike(base) and _plain(base) != weights:
        raise ConfigError(
            f"license: the weights began as {source}, whose {base} asks for the same license, not {weights}; set "
            f"license: {base} in the card"
        )


def _plain(text: str) -> str:
    """Return a license without the remark in parentheses."""
    return text.partition(" (")[0]

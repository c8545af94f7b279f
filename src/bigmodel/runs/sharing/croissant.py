"""The data's card, in Croissant 1.0 (mlcommons.org/croissant): name, license, fingerprint, splits and classes.

The data itself is not in the folder, so the card lists no files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_CLASSES = 1000
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "samplingRate": "cr:samplingRate",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(
    name: str,
    description: str,
    license_text: str,
    fingerprint: str,
    source: str | None,
    splits: Mapping[str, int],
    classes: Sequence[str],
    class_counts: Sequence[int] | None,
    fields: Sequence[tuple[str, str]],
    date: str,
) -> str:
    """Return the card as JSON. `fields` are what a sample has, as name and type."""
    records = [_record_set("splits", {"name": "sc:Text", "samples": "sc:Integer"}, [*splits.items()])]
    if classes:
        rows: list[tuple[Any, ...]] = [(index, text) for index, text in enumerate(classes[:_MAX_CLASSES])]
        columns = {"index": "sc:Integer", "name": "sc:Text"}
        if class_counts is not None and len(class_counts) == len(classes):
            columns["train_samples"] = "sc:Integer"
            rows = [(*row, n) for row, n in zip(rows, class_counts, strict=False)]
        records.append(_record_set("classes", columns, rows))
    if fields:
        records.append(_record_set("fields", {"name": "sc:Text", "type": "sc:Text"}, fields))
    card: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": _plain_name(name),
        "description": f"{description}. The data is not in this folder; its fingerprint is {fingerprint}.",
        "license": license_text,
        "version": "1.0.0",
        "identifier": fingerprint,
        "citeAs": description,
        "datePublished": date,
    }
    if source and (address := re.search(r"(?:https?://)?[\w-]+(?:\.[\w-]+)+/\S*", source)):
        card["url"] = address[0].rstrip(",)") if "://" in address[0] else f"https://{address[0].rstrip(',)')}"
    return json.dumps(card | {"recordSet": records}, indent=1, ensure_ascii=False) + "\n"


def _record_set(name: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return a table of facts that the card itself holds."""
    ids = [f"{name}/{column}" for column in columns]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "field": [
            {"@type": "cr:Field", "@id": key, "name": key, "dataType": kind}
            for key, kind in zip(ids, columns.values(), strict=True)
        ],
        "data": [dict(zip(ids, row, strict=True)) for row in rows],
    }


def _plain_name(text: str) -> str:
    """Return a name of the letters that a data set's may have."""
    return re.sub(r"[^A-Za-z0-9_\- .]", "_", text)[:200] or "data"

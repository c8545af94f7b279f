"""Build a processor's prediction options from keywords, checked against its `Options`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args

from bigmodel.config.instantiate import node_problems, parse_exactly
from bigmodel.config.signatures import Parameter, Signature, dataclass_signature
from bigmodel.errors import ConfigError, suggest
from bigmodel.formatting import truncate

_NO_OTHERS: Mapping[str, Parameter] = {}


def build_options(
    cls: type[Any],
    given: Mapping[str, Any],
    owner: str,
    *,
    parse_texts: bool = False,
    others: Mapping[str, Parameter] = _NO_OTHERS,
) -> Any:
    """Build an instance of the dataclass `cls`; options that are not given keep their defaults.

    - `owner`: the processor's name for messages.
    - `parse_texts`: a text becomes the number that its option takes, as `top=${oc.env:TOP}`.
    - `others`: further keywords in `given`, which are checked and left out.

    None for a group of options, as `sample`, is its default.

    Raises:
        ConfigError: a line for each unknown option, with the nearest name or all names, and for each wrong value.
    """
    problems = list(_problems(cls, given, owner, "", parse_texts, others))
    if problems:
        raise ConfigError(*problems)
    try:
        return _build(cls, given, parse_texts)
    except (ValueError, OverflowError) as error:  # from the dataclass's own `__post_init__`
        raise ConfigError(str(error)) from error


def option_names(cls: type[Any], prefix: str = "") -> list[str]:
    """List the options of a dataclass by dotted key, as `top` and `sample.seed`."""
    names = []
    for name, parameter in dataclass_signature(cls).parameters.items():
        nested = _nested_options(parameter)
        names += option_names(nested, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return names


def _problems(
    cls: type[Any],
    given: Mapping[str, Any],
    owner: str,
    prefix: str,
    parse_texts: bool,
    others: Mapping[str, Parameter] = _NO_OTHERS,
) -> Iterator[str]:
    parameters = {**dataclass_signature(cls).parameters, **others}
    flat: dict[str, Any] = {}
    for key, value in given.items():
        if key not in parameters:
            yield f"{prefix}{truncate(str(key))}: {_why_unknown(str(key), cls, owner, prefix, others)}"
            continue
        nested = _nested_options(parameters[key])
        if nested is None:
            flat[key] = _parse(value, parameters[key], parse_texts)
        elif isinstance(value, Mapping):
            yield from _problems(nested, value, owner, f"{prefix}{key}.", parse_texts)
        elif value is not None and not isinstance(value, nested):
            yield f"{prefix}{key}: must be a group of settings, not {truncate(repr(value))}"
    unchecked = {key: parameter for key, parameter in parameters.items() if key in flat or key not in given}
    yield from node_problems(prefix.removesuffix("."), flat, Signature(unchecked, False))


def _why_unknown(key: str, cls: type[Any], owner: str, prefix: str, others: Mapping[str, Parameter]) -> str:
    hint = suggest(key, [*dataclass_signature(cls).parameters, *others], prefix)
    if hint.startswith("did you mean"):
        return f"no such setting; {hint}"
    names = option_names(cls, prefix)
    return f"{owner} has no such option; it has {', '.join(names) if names else 'none'}"


def _build(cls: type[Any], given: Mapping[str, Any], parse_texts: bool) -> Any:
    values = {}
    for key, parameter in dataclass_signature(cls).parameters.items():
        if key in given:
            nested = _nested_options(parameter)
            if nested is not None and isinstance(given[key], Mapping):
                values[key] = _build(nested, given[key], parse_texts)
            elif nested is None or given[key] is not None:
                values[key] = _parse(given[key], parameter, parse_texts)
    return cls(**values)


def _nested_options(parameter: Parameter) -> type[Any] | None:
    """Return the dataclass that an option is a group of, if it is one."""
    candidates = (parameter.annotation, *get_args(parameter.annotation))
    return next((one for one in candidates if isinstance(one, type) and is_dataclass(one)), None)


def _parse(value: Any, parameter: Parameter, parse_texts: bool) -> Any:
    return parse_exactly(value, parameter.annotation) if parse_texts and isinstance(value, str) else value

"""`card.yaml`: what only the author can say of a model. Asked for once, read from then on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from bigmodel.config.yaml_limits import yaml_text
from bigmodel.errors import ConfigError, StorageError, suggest
from bigmodel.formatting import truncate
from bigmodel.runs.sharing.licenses import check_hub_license
from bigmodel.safe_files import write_text

_TEMPLATE = """\
# What only you can say of your model. Only `license` must be answered; what is left empty is left out of the card.
license:            # of the weights, as the hub spells it: apache-2.0, mit, cc-by-4.0, cc-by-nc-4.0 ... or other
license_name:       # of license: other
license_link:       # where its text is
title:              # the card's first line
intended_use:       # what the model is for
limitations:        # what it should not be used for, and where it fails
contact:            # who answers questions
data_name:          # of data of your own: what it is called
data_license:       # of data of your own: its license, or why it has none
data_description:   # of data of your own: where it comes from, what is in it
base_license:       # of the weights of init.from, where they come without a card
watts:              # power of all devices while training, if you have measured it
"""
_LONGEST = 20_000  # letters of an answer
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Answers:
    """The author's answers; empty where there is none."""

    license: str
    license_name: str = ""
    license_link: str = ""
    title: str = ""
    intended_use: str = ""
    limitations: str = ""
    contact: str = ""
    data_name: str = ""
    data_license: str = ""
    data_description: str = ""
    base_license: str = ""
    watts: str = ""

    @property
    def license_text(self) -> str:
        """The license's own name."""
        return self.license_name if self.license == "other" else self.license


def read_answers(file: Path) -> Answers:
    """Read the author's answers.

    Raises:
        ConfigError: there is no such file, and its template is written there; or an answer is missing or wrong.
        StorageError: the template cannot be written.
    """
    if not file.exists() and not file.is_symlink():
        try:
            write_text(file, _TEMPLATE)
        except OSError as error:
            raise StorageError(f"{file}: cannot be written: {error.strerror or error}; set card=...") from error
        raise ConfigError(
            f"card: {file} was written: answer license in it, and what else you can say; then run this again"
        )
    try:
        loaded = yaml.load(yaml_text(file), _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: cannot be read: {truncate(error, 200)}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{file}: holds no answers; remove it, and a template will be written")
    names = [field.name for field in fields(Answers)]
    problems = [
        f"{file}: {truncate(key)}: no such question; {suggest(str(key), names)}" for key in loaded if key not in names
    ]
    for key, value in loaded.items():
        is_plain = value is None or (isinstance(value, (str, int, float)) and not isinstance(value, bool))
        if not is_plain or len(str(value)) > _LONGEST:
            problems.append(f"{file}: {truncate(key)}: must be a text of at most {_LONGEST} letters")
    if problems:
        raise ConfigError(*problems)
    given = {str(key): "" if value is None else str(value).strip() for key, value in loaded.items()}
    return _checked(file, Answers(**{"license": "", **given}))


def _checked(file: Path, answers: Answers) -> Answers:
    if not answers.license:
        raise ConfigError(f"{file}: license: of the weights, must be answered, as license: apache-2.0")
    check_hub_license(f"{file}: license", answers.license)
    if answers.license == "other" and not answers.license_name:
        raise ConfigError(f"{file}: license_name: must be answered where license is other")
    if answers.watts:
        try:
            is_power = 0 < float(answers.watts) < 1e9
        except ValueError:
            is_power = False
        if not is_power:
            raise ConfigError(f"{file}: watts: must be a number above 0, got {truncate(answers.watts)}")
    return answers

"""Settings from a configuration into the dataclass that holds them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from ops.errors import InputError

Settings = TypeVar("Settings")


def from_settings(kind: type[Settings], name: str, values: Mapping[str, Any]) -> Settings:
    """Build the dataclass `kind` from `values`, the settings under `name`.

    Raises:
        InputError: a setting that `kind` does not have, or one that it needs and `values` lacks.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise InputError(f"{name}.{unknown[0]}: no such setting; choose among {', '.join(known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"{name}: {error}; correct the setting's value") from None

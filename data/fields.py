"""The fields of annotation files: their values, which other forms are accepted, and the rest.

Some tools write numbers as text, flags as words or whole numbers with a decimal point. A form that
can mean only one thing is accepted; anything else is refused by name, never guessed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WHOLE_LIMIT = 1 << 63  # evaluators and arrays use numbers of 64 bits


def whole_number(value: Any) -> int:
    """A whole number of at most 64 bits; ValueError for anything else."""
    if type(value) is int:
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, str) and len(value) <= 20:
        number = int(value.strip())  # ValueError for other text
    else:
        raise ValueError("is no whole number")
    if not -WHOLE_LIMIT <= number < WHOLE_LIMIT:
        raise ValueError("does not fit 64 bits")
    return number


def positive_number(value: Any) -> int:
    """A whole number above 0."""
    number = whole_number(value)
    if number < 1:
        raise ValueError("is not above 0")
    return number


def number(value: Any) -> float:
    """A finite number, also as text; ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("is no number")
    try:
        converted = float(value)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted):
        raise ValueError("is not finite")
    return converted


FLAGS = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True, "": False}


def flag(value: Any) -> bool:
    """True or false; ValueError for what may mean either."""
    if value is None or value is False or value is True:
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in FLAGS:
            return FLAGS[word]
    elif isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise ValueError("is neither 0 nor 1")


def text(value: Any) -> str:
    """A text that is not empty; a number becomes its digits."""
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError("is no text")


def file_name(value: Any) -> str:
    """The name of a file; ValueError for anything else."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("is no name of a file")
    return value


@dataclass(frozen=True)
class Field:
    """One field of one of the file's lists.

    Attributes:
        list: the list that it is in.
        name: of the field.
        read: converts the file's value; its ValueError says what is wrong.
        admitted, understood: for the documentation: its values, and other accepted forms.
        otherwise: what happens to anything else.
        remedy: for the error message.
    """

    list: str
    name: str
    read: Callable[[Any], Any]
    admitted: str
    understood: str
    otherwise: str
    remedy: str = "correct it"


AS_WHOLE = 'text such as "12", 12.0'
FIELDS = (
    Field("images", "id", whole_number, "a whole number of 64 bits", AS_WHOLE, "refused",
          "number them"),
    Field("images", "file_name", file_name, "a path below the image folder", "–", "refused",
          "add it"),
    Field("images", "height", positive_number, "whole pixels", AS_WHOLE, "refused",
          "write its size in whole pixels"),
    Field("images", "width", positive_number, "whole pixels", AS_WHOLE, "refused",
          "write its size in whole pixels"),
    Field("categories", "id", whole_number, "a whole number of 64 bits", AS_WHOLE, "refused",
          "number them"),
    Field("categories", "name", text, "a text", "a number: its digits", "refused", "give it one"),
    Field("annotations", "id", whole_number, "a whole number of 64 bits", AS_WHOLE, "refused",
          "number them"),
    Field("annotations", "image_id", whole_number, "an id of `images`", AS_WHOLE, "refused"),
    Field("annotations", "category_id", whole_number, "an id of `categories`", AS_WHOLE,
          "refused"),
    Field("annotations", "iscrowd", flag, "0 or 1", 'true, false, "0", "1", null, absent',
          "refused", "write 0 for a single object, 1 for a group"),
    Field("annotations", "bbox", number, "x, y, width, height in pixels", 'text such as "12.5"',
          "the annotation is left out and listed"),
    Field("annotations", "area", number, "square pixels, 0 or more", 'text such as "12.5"',
          "computed from the outline; listed where a value was there"),
    Field("annotations", "segmentation", list, "rings of x, y, x, y ...; or RLE",
          "one level of brackets too few or too many is not", "the annotation is left out and "
          "listed; a ring far outside its image is cut to the image's surroundings"),
)  # fmt: skip
BY_NAME = {(field.list, field.name): field for field in FIELDS}


def as_markdown() -> str:
    """The table for docs/data.md."""
    lines = ["| list | field | is | understood too | anything else |", "|---|---|---|---|---|"]
    lines += [
        f"| `{f.list}` | `{f.name}` | {f.admitted} | {f.understood} | {f.otherwise} |"
        for f in FIELDS
    ]
    return "\n".join(lines)

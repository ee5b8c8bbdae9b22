"""Text, yaml and xml files, and the numbers in them, as labelling tools write them."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml  # type: ignore[import-untyped]

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import read_bytes, read_text
from effdet_plugin.own_data.findings import Findings, printable

# Encodings of labelling tools that the parser may lack. Python has others that are slow on long
# texts (idna, punycode) or no encodings at all (undefined, zip).
_ENCODINGS = re.compile(
    r'(?i)(gb|big5|euc|shift|sjis|iso|windows|cp|koi8|mac|latin|utf|ks_c|hz)[\w.:-]{0,30}'
)
# Longer whole numbers are no size and no id.
_LONGEST_WHOLE = 2**63
# No image has so many pixels on a side: a number beyond it is as good as infinite.
_BEYOND_ALL = 1e9


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file without blanks around them; empty lines stay as ''."""
    return [line.strip() for line in read_text(path).splitlines()]


class _Loader(yaml.BaseLoader):
    """Keeps every value as text, and takes aliases of single values only.

    A few hundred bytes with aliases of lists of aliases stand for more values than memory holds.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node; refuse an alias of a list or mapping."""
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_alias and not isinstance(node, yaml.ScalarNode):
            mark = node.start_mark
            raise yaml.MarkedYAMLError(
                problem='an alias of a list or mapping is not read: write it out', problem_mark=mark
            )
        return node


def read_yaml(path: Path) -> Any:
    """Read a yaml file; every value stays text, so that a class called ``no`` stays one.

    Raises:
        DatasetError: It is damaged, or has aliases of lists; the message names file and line.
    """
    try:
        return yaml.load(read_text(path).replace('\t', '    '), Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DatasetError(f'{path}: broken yaml ({" ".join(str(error).split())})') from error


def read_xml(path: Path) -> ElementTree.Element:
    """Read the root of an xml file, also in encodings that Python's parser refuses (gbk).

    Raises:
        DatasetError: It is damaged; the message names the file.
    """
    content = read_bytes(path)
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        first = error
    try:
        return ElementTree.fromstring(_decode_declared(content) or '')
    except (ElementTree.ParseError, ValueError):
        reason = printable(first)
        raise DatasetError(f'{path}: broken xml ({reason}): export it again') from first


def _decode_declared(content: bytes) -> str | None:
    """Return the text behind the xml declaration in the encoding that it names."""
    declaration, end, body = content.partition(b'?>')
    if not end or b'encoding' not in declaration:
        return None
    encoding = declaration.split(b'encoding', 1)[1].strip(b' =?').strip(b'"\'')
    name = encoding.split(b'"')[0].split(b"'")[0].decode('ascii', 'replace')
    if not _ENCODINGS.fullmatch(name):
        return None
    try:
        return body.decode(name)
    except (LookupError, ValueError):
        return None


def number(value: object) -> float | None:
    """Return the number that a value stands for, None if none; may be NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and '_' in value:  # Python reads 1_0 as 10
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf


def is_finite(numbers: Iterable[float]) -> bool:
    """Return whether all numbers are finite and small enough to be about an image."""
    return all(abs(one) < _BEYOND_ALL for one in numbers)


def whole_number(value: object) -> int | None:
    """Return the whole number that a value stands for (7, 7.0, '007'), None if none or too long."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < _LONGEST_WHOLE else None
    found = number(value)
    return int(found) if found is not None and is_finite([found]) and found == int(found) else None


def flag(value: object) -> bool:
    """Return whether a value says yes (1, 1.0, true, 'True'); 'Unspecified' says no."""
    if isinstance(value, str) and value.strip().lower() in ('true', 'yes'):
        return True
    return value is True or bool(whole_number(value))


def is_angle(name: object) -> bool:
    """Return whether a key is a usual one of the angle that an object is turned by."""
    return isinstance(name, str) and name.strip().lower() in ('rotation', 'angle', 'theta')


def turn(angle: object) -> float:
    """Return an angle in degrees, 0 where there is none or it leaves a rectangle as it is."""
    found = number(angle)
    return found if found is not None and is_finite([found]) and found % 180 else 0


def size(width: object, height: object) -> tuple[int, int] | None:
    """Return a size in pixels, None where it is absent or makes no sense (0, -1, text)."""
    sides = whole_number(width) or 0, whole_number(height) or 0
    return sides if min(sides) > 0 and is_finite(sides) else None


def four_numbers(written: object, file: str, row: str, findings: Findings) -> list[float] | None:
    """Return the numbers of a box, None (and a finding) if they are not four finite ones.

    Args:
        written: A list of numbers or texts; anything else is no box.
        file: For the finding.
        row: For the finding.
        findings: Noted here.
    """
    values = [number(value) for value in written] if isinstance(written, list) else []
    numbers = [value for value in values if value is not None]
    if len(values) != 4 or len(numbers) != 4:
        findings.add('box_not_numbers', file, row, written)
    elif not is_finite(numbers):
        findings.add('box_not_finite', file, row, written)
    else:
        return numbers
    return None

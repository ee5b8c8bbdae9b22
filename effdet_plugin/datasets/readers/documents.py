"""Text, json, yaml and xml files as people's computers write them."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml  # type: ignore[import-untyped]

from effdet_plugin.errors import DatasetError


def read_text(path: Path) -> str:
    """A text file, with or without a byte-order mark.

    Raises:
        DatasetError: If it cannot be read or is not UTF-8 (or UTF-16 with its mark).
    """
    content = _read_bytes(path)
    encoding = 'utf-16' if content[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DatasetError(f'{path}: not UTF-8 ({error.reason}): save it as UTF-8') from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without blanks around them; empty lines stay as ''."""
    return [line.strip() for line in read_text(path).splitlines()]


def read_json(path: Path) -> Any:
    """A json file.

    Raises:
        DatasetError: If it is damaged; names the file and the line.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(
            f'{path}: broken json ({error.msg} in line {error.lineno}): export it again'
        ) from error
    except (RecursionError, ValueError) as error:
        raise DatasetError(f'{path}: broken json ({error}): export it again') from error


def read_yaml(path: Path) -> Any:
    """A yaml file; every value is text, so that a class called ``no`` stays one.

    Raises:
        DatasetError: If it is damaged; names the file and the line.
    """
    try:
        return yaml.load(read_text(path).replace('\t', '    '), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = ' '.join(str(error).split())
        raise DatasetError(f'{path}: broken yaml ({said})') from error


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an xml file, also in encodings that the parser of Python refuses (gbk).

    Raises:
        DatasetError: If it is damaged; names the file.
    """
    content = _read_bytes(path)
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        decoded = _decode_declared(content)
        if decoded is None:
            raise DatasetError(f'{path}: broken xml ({error}): export it again') from error
    try:
        return ElementTree.fromstring(decoded)
    except (ElementTree.ParseError, ValueError) as error:
        raise DatasetError(f'{path}: broken xml ({error}): export it again') from error


def _decode_declared(content: bytes) -> str | None:
    """The text behind the xml declaration in the encoding that it names."""
    declaration, end, body = content.partition(b'?>')
    if not end or b'encoding' not in declaration:
        return None
    encoding = declaration.split(b'encoding', 1)[1].strip(b' =?').strip(b'"\'')
    try:
        return body.decode(encoding.split(b'"')[0].split(b"'")[0].decode('ascii'))
    except (LookupError, UnicodeDecodeError):
        return None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f'{path}: cannot be read ({error.strerror})') from error

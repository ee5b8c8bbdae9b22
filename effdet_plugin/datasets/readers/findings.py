"""What is noted while a data set is read: one counted finding for each kind of fault."""

from dataclasses import dataclass, field

from effdet_plugin.datasets.readers.kinds import KINDS, Severity
from effdet_plugin.errors import DatasetError

#: What is quoted from a file is cut at this many letters.
MAX_QUOTED = 200
#: A finding keeps this many places, so that a data set that is wrong everywhere stays small.
MAX_PLACES = 20


@dataclass(frozen=True)
class Place:
    """Where a fault was seen.

    Args:
        file: The annotation file or picture, relative to the data folder where it can be.
        row: Line of a text file, ``annotation 12``, ``object 2``, or '' for the whole file.
        detail: What is special about this case.
    """

    file: str
    row: str = ''
    detail: str = ''

    def __str__(self) -> str:
        return f'{self.file}, {self.row}' if self.row else self.file


@dataclass
class Finding:
    """All cases of one kind of fault; ``places`` holds the first of them."""

    kind: str
    severity: Severity
    count: int = 0
    places: list[Place] = field(default_factory=list)

    @property
    def file(self) -> str:
        """The file of the first case."""
        return self.places[0].file

    @property
    def row(self) -> str:
        """Row or id of the first case, '' where the whole file is meant."""
        return self.places[0].row

    @property
    def message(self) -> str:
        """One line: what, how often, where first, and what to do or what was done."""
        kind, first = KINDS[self.kind], self.places[0]
        if self.count == 1:
            return f'{first}: {kind.one.format(detail=first.detail)}'
        said = kind.many.format(n=self.count, detail=first.detail)
        return f'{said} (first: {first})'


def printable(value: object) -> str:
    """A quotation on one line that every terminal and file takes."""
    text = str(value).encode('utf-8', 'backslashreplace').decode()
    text = ' '.join(text.split())
    return text if len(text) <= MAX_QUOTED else f'{text[:MAX_QUOTED]}...'


class Findings:
    """Collects cases by kind, in the order in which the kinds are first seen."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Finding] = {}

    def add(self, kind: str, file: object, row: str = '', detail: object = '') -> None:
        """Count one case of a kind of :data:`KINDS`."""
        finding = self._by_kind.setdefault(kind, Finding(kind, KINDS[kind].severity))
        finding.count += 1
        if len(finding.places) < MAX_PLACES:
            finding.places.append(Place(printable(file), printable(row), printable(detail)))

    def all(self) -> list[Finding]:
        """All findings, errors first."""
        return sorted(self._by_kind.values(), key=lambda finding: finding.severity != 'error')


def raise_errors(findings: list[Finding]) -> None:
    """Stop at data that cannot be trained on.

    Args:
        findings: As :meth:`Findings.all` gives them.

    Raises:
        DatasetError: One line with the first error, and how many kinds follow it.
    """
    errors = [finding for finding in findings if finding.severity == 'error']
    if not errors:
        return
    more = [f'{finding.kind} ({finding.count})' for finding in errors[1:]]
    raise DatasetError(errors[0].message + (f'; also: {", ".join(more)}' if more else ''))

"""What a conversion did with every tensor."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Report:
    """The report of one conversion; a tensor that is in no list would have been an error.

    Attributes:
        source: file name.
        format: what it is, in words.
        sha256: of the file.
        model: the network, e.g. ``'d0'``.
        network: its numbers, in words.
        mapped: our name -> names in the source.
        filled: our name -> why it was filled with zeros.
        left_out: name in the source -> reason.
        parameters: number of trainable values of the source.
        statistics: number of BN statistics.
        written_parameters: number of trainable values of the result, after the choice of classes.
        notes: everything else that a person should know.
    """

    source: str
    format: str
    sha256: str
    model: str
    network: str
    mapped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    statistics: int = 0
    written_parameters: int = 0
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report for a person, a line per topic."""
        num_sources = sum(len(sources) for sources in self.mapped.values())
        result = [
            f'source      {self.source} ({self.format}, sha256 {self.sha256[:16]}...)',
            f'model       {self.model}: {self.network}',
            f'mapped      {num_sources} tensors to {len(self.mapped)}',
            *_by_reason('filled', self.filled),
            *_by_reason('left out', self.left_out),
            'missing     0',  # a conversion with a missing tensor is an error
            f'parameters  {self.parameters:,} trainable, {self.statistics:,} BN statistics',
        ]
        if self.written_parameters != self.parameters:
            result[-1] += f'; {self.written_parameters:,} trainable with the classes kept'
        return result + [f'note        {note}' for note in self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for a JSON file."""
        return {**asdict(self), 'missing': []}


def _by_reason(title: str, names: dict[str, str]) -> list[str]:
    counts = Counter(names.values())
    return [f'{title:<11} {count} ({reason})' for reason, count in counts.items()]

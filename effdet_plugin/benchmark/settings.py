"""What all modes of the benchmark are told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effdet_plugin.config import Options
from effdet_plugin.errors import ConfigError

# Forms of a checkpoint's network, the first of them the plain one.
FORMS = (
    *('eager', 'channels_last', 'folded', 'fast', 'bf16', 'fp16', 'compiled', 'recompute'),
    'checkpoint',
)
DEFAULT_FORMS = ('eager', 'channels_last', 'folded', 'fast', 'bf16')
RIVALS = ('effdet',)


@dataclass
class Settings:
    """Settings of a measurement.

    Attributes:
        config: Config file or its name; None takes the one in the model.
        models: Checkpoints, exported files or ``'none'``.
        images: Image files; empty: rendered scenes.
        batches: Numbers of images per call.
        rounds: Timed calls of each form, in turns.
        threads: Number of threads; None: torch's choice.
        device: None takes the fastest one available.
        forms: Of `FORMS`. ``fast`` is folded and channels_last, ``bf16``, ``fp16`` and
            ``compiled`` are fast ones; ``recompute`` and ``checkpoint`` are meant for
            training.
        against: ``'effdet'`` or None.
        image_size: Replaces the config's.
        options: ``--cfg-options``.
        score_thr: Score threshold of the post-processing; None: the config's.
        data: Own data that the loader reads; None: the config's.
        step_ms: Time of a training step that the loader is to feed.
        nms: Methods of the post-processing that is timed with the network, or in ``end2end``.
    """

    models: list[str]
    config: str | Path | None = None
    images: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=lambda: [1, 8])
    rounds: int = 15
    threads: int | None = None
    device: str | None = None
    forms: tuple[str, ...] = DEFAULT_FORMS
    against: str | None = None
    image_size: str | int | None = None
    options: Options | None = None
    score_thr: float | None = 0.05
    nms: tuple[str, ...] = ('hard', 'gaussian')
    data: Path | None = None
    step_ms: float | None = None

    def check(self) -> None:
        """Check what an argument parser cannot.

        Raises:
            ConfigError: Names the setting.
        """
        if not self.models:
            raise ConfigError('benchmark: give a MODEL: a checkpoint, an exported file or none')
        for name, values in (('--batch', self.batches), ('--rounds', [self.rounds])):
            if not values or min(values) < 1:
                raise ConfigError(f'{name}: {min(values, default=0)} is not a number above 0')
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f'--threads: {self.threads} is not a number above 0')
        if self.step_ms is not None and not self.step_ms > 0:
            raise ConfigError(f'--step-ms: {self.step_ms} is not above 0')
        if self.score_thr is not None and not 0 <= self.score_thr < 1:
            raise ConfigError(f'--score-thr: {self.score_thr} is not in 0..1')
        _check_known('--forms', self.forms, FORMS)
        _check_known('--nms', self.nms, ('hard', 'gaussian'))
        _check_known('--against', [self.against] if self.against else [], RIVALS)

    def postprocessing(self, config: Any, method: str) -> dict[str, Any]:
        """Return the arguments of the config's post-processor with these settings."""
        given = dict(config.model.bbox_head.get('postprocessor') or {})
        given.pop('type', None)
        changed: dict[str, Any] = {**given, 'method': method}
        if self.score_thr is not None:
            changed['score_thr'] = self.score_thr
        return changed


def _check_known(option: str, given: Any, known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise ConfigError(f'{option} {name}: choose of {", ".join(known)}')

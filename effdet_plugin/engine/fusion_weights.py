"""Record the learned weights of every fusion during a training, and plot them (figure 5)."""

import json
from pathlib import Path
from typing import Any, TypedDict

from mmdet.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from effdet_plugin.files import replacing, write_atomically

RECORD_NAME = 'fusion_weights.jsonl'
PLOT_NAME = 'fusion_weights.png'


class Record(TypedDict):
    """Weights at one step: by name of the fusion, the factor of each of its inputs."""

    step: int
    weights: dict[str, list[float]]


@HOOKS.register_module()
class FusionWeightsHook(Hook):
    """Writes ``fusion_weights.jsonl`` into the work dir and plots it as ``fusion_weights.png``.

    The plot is written at the end of the training and of each epoch in which something was
    recorded. A fusion without weights (``'sum'``) has nothing to record.

    Args:
        interval: Steps between two records.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int = 100) -> None:
        self.interval = interval
        self._plotted = True  # nothing to plot yet
        self._last_step = -1

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Keep the records before the step that the run starts at, and record that step."""
        path = self._path(runner)
        lines = [_line(r) for r in read_records(path) if r['step'] < runner.iter]
        if lines:
            write_atomically(path, ''.join(lines))
        else:
            path.unlink(missing_ok=True)
        self._record(runner, runner.iter)
        if not fusion_weights(runner.model):
            print_log('No fusion has weights: there is nothing to record', logger='current')

    @master_only
    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Record every ``interval`` steps."""
        if self.every_n_train_iters(runner, self.interval):
            self._record(runner, runner.iter + 1)

    @master_only
    def after_train_epoch(self, runner: Runner) -> None:
        """Plot the records, if there are new ones."""
        if not self._plotted:
            plot_records(read_records(self._path(runner)), Path(runner.work_dir) / PLOT_NAME)
            self._plotted = True

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Record and plot the last step, which may lie between two records."""
        if self._last_step != runner.iter:
            self._record(runner, runner.iter)
            self.after_train_epoch(runner)

    def _path(self, runner: Runner) -> Path:
        return Path(runner.work_dir) / RECORD_NAME

    def _record(self, runner: Runner, step: int) -> None:
        weights = fusion_weights(runner.model)
        if weights:
            values = {name: [round(x, 6) for x in w.tolist()] for name, w in weights.items()}
            with self._path(runner).open('a', encoding='utf-8') as file:
                file.write(_line({'step': step, 'weights': values}))
            self._plotted = False
        self._last_step = step


def _line(record: Record) -> str:
    return json.dumps(record) + '\n'


def fusion_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the normalised weights ``(n,)`` of every fusion that has some, by name.

    Weights for each channel, ``(n, C)``, are averaged over the channels.
    """
    found = {}
    for name, module in model.named_modules():
        # Found by a method, not by a class: models and engine do not import each other.
        if hasattr(module, 'normalized_weights') and module.normalized_weights() is not None:
            weights = module.normalized_weights().detach()
            name = name.removeprefix('module.').removesuffix('.fusion')  # of a wrapped model
            found[name] = weights if weights.dim() == 1 else weights.mean(1)
    return found


def read_records(path: Path) -> list[Record]:
    """Read a record file; none if it is missing. A truncated last line is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:  # the process was killed while it wrote
            break
    return records


def plot_records(records: list[Record], path: Path) -> None:
    """Plot the weight of each input over the steps: one panel per fusion, one row per BiFPN cell.

    Args:
        records: In the order of their steps.
        path: Image to write.
    """
    from matplotlib.figure import Figure

    names = list(records[-1]['weights'])
    rows = list(dict.fromkeys(name.partition('.nodes.')[0] for name in names))
    columns = max(sum(name.startswith(f'{row}.') for name in names) for row in rows)
    figure = Figure(figsize=(1.6 * columns, 1.6 * len(rows) + 0.4), layout='constrained')
    axes = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    for line, row in zip(axes, rows, strict=True):
        own = [name for name in names if name.startswith(f'{row}.')]
        for number, axis in enumerate(line):
            axis.set_visible(number < len(own))
            if number < len(own):
                _plot_fusion(axis, records, own[number])
    axes[0, 0].set_ylim(0, 1)
    figure.supxlabel('step')
    figure.supylabel('weight of each input')
    with replacing(path) as part:
        figure.savefig(part, dpi=120)


def _plot_fusion(axis: Any, records: list[Record], name: str) -> None:
    steps = [record['step'] for record in records]
    for number, weights in enumerate(zip(*(r['weights'][name] for r in records), strict=True)):
        axis.plot(steps, weights, '.-', markersize=3, label=f'input {number}')
    title = name.removeprefix('neck.').replace('cells.', 'cell ').replace('.nodes.', ' node ')
    axis.set_title(title, fontsize=7)
    axis.tick_params(labelsize=6)
    axis.legend(fontsize=5, loc='upper right')

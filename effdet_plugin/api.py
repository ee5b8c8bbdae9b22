"""EfficientDet in three lines; what the commands do, from Python.

    from effdet_plugin import Detector

    model = Detector('lite0')
    model.train(data='my_images', epochs=20)
    print(model.predict('street.jpg').pred_instances)

Everything here calls what the commands call: `effdet_plugin.training`, `inference` and `export`,
whose functions have more options.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmdet.structures import DetDataSample
from PIL import Image as Pillow

from effdet_plugin import inference
from effdet_plugin.config import Options
from effdet_plugin.errors import ConfigError
from effdet_plugin.export.api import FORMATS
from effdet_plugin.export.api import Options as ExportOptions
from effdet_plugin.export.api import export as write_export
from effdet_plugin.inference.inputs import Image
from effdet_plugin.shipped_configs import is_config, named_configs
from effdet_plugin.trained_model import NO_CHECKPOINT, load_trained
from effdet_plugin.training import TestSettings, best_checkpoint, evaluate, plain_settings, train

SCORE_THR = 0.4  # of `predict`, as of the command


class Detector:
    """A detector that can be trained, tested, used and exported.

        Detector('lite0')                  # a network, to be trained
        Detector('best.pth')               # a checkpoint of ours, or an exported file
        Detector('d0_coco', 'd0.pth')      # config and checkpoint

    Args:
        config: A network (``'lite0'`` ... ``'d7x'``), a config or its name, or a model.
        checkpoint: Trained weights or an exported file; None: those of `config`, or none yet.
        device: Of `predict`; None takes the fastest one available.
        image_size: Replaces the config's; see `effdet_plugin.config.parse_size`.
        options: See `effdet_plugin.config.merge_options`.

    Attributes:
        config: Config, or its name; None where the checkpoint carries it.
        checkpoint: What predicts; None before a training.
        network: Name of the network that a training of own data takes, None for the config's.
    """

    def __init__(
        self,
        config: Path | str,
        checkpoint: Path | str | None = None,
        *,
        device: str | None = None,
        image_size: str | int | tuple[int, int] | None = None,
        options: Options | None = None,
    ) -> None:
        self.network: str | None = None
        self.config: Path | str | None = config
        if f'{config}_coco' in named_configs():
            self.network, self.config = str(config), f'{config}_coco'
        elif checkpoint is None and not is_config(config):
            self.config, checkpoint = None, config
        self.checkpoint: Path | str | None = checkpoint
        self.device, self.image_size, self.options = device, image_size, options
        self._detector: tuple[dict[str, Any], inference.Detector] | None = None

    def train(self, data: Path | str | None = None, **settings: Any) -> Path:
        """Train; the best checkpoint is the model's from then on.

        Args:
            data: Own data: a folder with images and labels, or an annotation file. None: the
                config's data.
            settings: See `effdet_plugin.training.plain_settings`: ``epochs``, ``batch_size``,
                ``lr``, ``freeze``, ``weights``, ``time='30m'``, ``name``, ``work_dir``, ``resume``,
                ``seed`` ...

        Returns:
            The checkpoint with the highest AP, or the last one where nothing was evaluated.

        Raises:
            UserError: One line that says what is wrong, where, and what to do.
        """
        chosen: dict[str, Any] = (
            {'model': self.network} if self.network else {'config': self.config}
        )
        if self.image_size is not None:
            chosen['image_size'] = self.image_size
        work_dir = Path(train(plain_settings(data=data, **{**chosen, **settings})).work_dir)
        # It carries its config, with its own classes.
        self.config, self.network, self._detector = None, None, None
        self.checkpoint = best_checkpoint(work_dir)
        return self.checkpoint

    def predict(
        self, images: Image | Iterable[Image], score_thr: float = SCORE_THR, **settings: Any
    ) -> DetDataSample | list[DetDataSample]:
        """Detect objects.

        Args:
            images: A path, a Pillow image, an array or tensor in RGB; or several of them.
            score_thr: Detections with a lower score are dropped.
            settings: See `effdet_plugin.inference.Detector`: ``tta``, ``tiles``, ``classes`` ...

        Returns:
            For one image mmdet's sample, whose ``pred_instances`` has ``bboxes`` (x1, y1, x2, y2 in
            pixels of the image), ``scores`` and ``labels``; for several a list of them.

        Raises:
            UserError: One line that says what is wrong, where, and what to do.
        """
        wanted = {'score_thr': score_thr, **settings}
        # A local name: another thread may ask for other settings meanwhile.
        known = self._detector
        if known is None or known[0] != wanted:
            detector = inference.Detector(
                self.config,
                self._weights(),
                self.device,
                image_size=self.image_size,
                options=self.options,
                **wanted,
            )
            self._detector = known = wanted, detector
        found = known[1](images)
        is_one = isinstance(images, str | Path | Pillow.Image) or getattr(images, 'ndim', 0) == 3
        return found[0] if is_one else found

    def test(self, data: Path | str | None = None, **settings: Any) -> dict[str, float]:
        """Evaluate; return COCO's 12 metrics by name.

        Args:
            data: Own data: its test split, else validation, else all. None: the config's.
            settings: See `effdet_plugin.training.TestSettings`.

        Raises:
            UserError: One line that says what is wrong, where, and what to do.
        """
        given = {'image_size': self.image_size, 'cfg_options': self.options, **settings}
        path = None if data is None else Path(data)
        metrics = evaluate(TestSettings(self.config, str(self._weights()), data=path, **given))
        return {name.rpartition('bbox_')[2]: value for name, value in metrics.items()}

    def export(self, format: str, out: Path | str | None = None, **settings: Any) -> Path:
        """Write the model for another runtime, checked against PyTorch; return the file.

        Args:
            format: ``'onnx'``, ``'openvino'`` or ``'pt2'``.
            out: File; None: beside the checkpoint.
            settings: See `effdet_plugin.export.api.Options`.

        Raises:
            UserError: One line that says what is wrong, where, and what to do.
        """
        options = ExportOptions(format=format, **settings)
        options.check()
        weights = self._weights()
        trained = load_trained(
            self.config, weights, 'cpu', image_size=self.image_size, options=self.options
        )
        return write_export(
            trained, out or Path(weights).with_suffix(FORMATS[format]), options
        ).path

    def _weights(self) -> Path | str:
        if self.checkpoint is None:
            raise ConfigError(
                f"{self.config}: has no weights yet: train it, give Detector('{self.config}', "
                f"'best.pth'), or {NO_CHECKPOINT!r} for random ones"
            )
        return self.checkpoint

"""Trained segmenters applied to scans: from a volume to a mask on its own grid."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from tfaug import inference
from tfaug.compat import keras
from tfaug.config import Config
from tfaug.data import preprocess, traits
from tfaug.data.preprocess import Prepared, Segmentation
from tfaug.engine import memory, run_dir
from tfaug.experiment import networks, runs, sources
from tfaug.types import Volume


class Segmenter:
    """The segmenters of one or several finished runs; the probabilities of several are averaged on the scan's grid.

    Args:
      paths: the runs' folders.

    Attributes:
      task: structures and channels.
      slice_axis: see `DataSet`.
      models: the Keras models, from prepared slices [N, H, W, C] to logits [N, H, W, classes].

    Raises:
      UserError: a run has no segmenter, or they do not agree on structures, channels or the axis that is sliced.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]):
        paths = [pathlib.Path(path) for path in paths]
        configs = sources.configs_of_segmenters(paths)
        self.task, self.slice_axis = sources.task_of(configs[0]), configs[0].data.slice_axis
        self.models = [_load(path, config) for path, config in zip(paths, configs)]
        self._specs = [sources.spec_of(config) for config in configs]
        # With the batch size of `runs.evaluate`: another one may change the last bits.
        self._predict = [
            inference.predictor(model, config.segment.batch_size) for model, config in zip(self.models, configs)
        ]
        self._known = [list((run_dir.read_report(path).get("scans") or {}).values()) for path in paths]

    def prepare(self, volume: Volume) -> list[Prepared]:
        """The volume, prepared as each of the runs needs it.

        Raises:
          UserError: see `preprocess.prepare_volume`.
        """
        made = {spec: preprocess.prepare_volume(volume, spec) for spec in dict.fromkeys(self._specs)}
        return [made[spec] for spec in self._specs]

    def __call__(self, prepared: Sequence[Prepared], keep_probabilities: bool = False) -> Segmentation:
        """Segments what `prepare` made of a volume.

        Raises:
          MachineError: memory runs out.
        """
        with memory.running_out("free some, or use a machine with more"):
            parts = [(predict(one.image), one.grid) for predict, one in zip(self._predict, prepared)]
            return preprocess.restore_mean(parts, keep_probabilities)

    def unlike(self, prepared: Sequence[Prepared]) -> dict[str, str]:
        """How a scan differs from the runs' training data, see `traits.unlike`; older runs have not recorded theirs."""
        lines = {}
        for one, known in zip(prepared, self._known):
            lines = {**traits.unlike(traits.of(one), known), **lines}
        return lines


def _load(path: pathlib.Path, config: Config) -> keras.Model:
    with networks.precision(config):
        return runs.segmenter_of(path)

"""The folder of an exported network: its file, how scans are prepared for it, and where it comes from.

    OUT/model.keras, saved_model/ or model.onnx    the network, see `portable`
    OUT/layers.py             for Keras, if the network has layers that Keras lacks
    OUT/preprocessing.json    how a scan becomes an input, and what the outputs are
    OUT/MODEL_CARD.md         data, scores, how to train it again, intended use
    OUT/CONFIG.py             the config that trains it again

The folder is written under a temporary name and renamed: it is complete or absent. Needs no TensorFlow: the network is
passed in, see `portable`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import tfaug
from tfaug import tables
from tfaug.augment.methods import METHODS
from tfaug.config import Config, cases, limits_intensity, program
from tfaug.configs import acdc
from tfaug.data.dataset import EQUAL_SPACING
from tfaug.data.preprocess import PERCENTILES
from tfaug.data.readers import acdc as acdc_reader
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError, counted, printable
from tfaug.engine.files import PART, check_writable, machine_errors, sync, write_json
from tfaug.experiment import identity
from tfaug.experiment.sources import SPLITS, about_lost, generators_of, task_of, whole_config
from tfaug.types import Z_DIM

FILES = {"keras": "model.keras", "savedmodel": "saved_model", "onnx": "model.onnx"}
"""The formats, and the file or folder that holds the network."""
LAYERS_FILE = "layers.py"
OPSET = 17  # ONNX operator set, which onnxruntime 1.12 and later support
_OTHER = "choose another --output"
ROOM = "make room or choose another --output, then run the command again"
_NETWORKS = {
    "segmenter": "a segmenter",
    "deform": "a generator of deformation fields",
    "intensity": "a generator of additive intensity fields",
}


def check_format(to: str) -> None:
    """Refuses a format that this installation cannot write.

    Raises:
      UserError: says what to install.
    """
    if to == "onnx" and not all(map(importlib.util.find_spec, ("onnx", "tf2onnx"))):
        if sys.version_info < (3, 10):
            raise UserError("--to=onnx", "needs Python 3.10 or later", "use one, or choose --to=savedmodel")
        raise UserError("--to=onnx", "needs tf2onnx, which is not installed", "pip install 'tfaug[onnx]'")


class Export:
    """The export of a finished run's network; problems are found before the network is loaded.

    Args:
      path: the run's folder.
      role: what it has trained, see `sources.config_of_network`.
      config: the run's config.
      folder: the folder to write; may exist if it is empty.
      to: the format, a key of `FILES`.

    Raises:
      UserError: the folder is in use for something else.
      MachineError: the folder cannot be written.
    """

    def __init__(self, path: pathlib.Path, role: str, config: Config, folder: pathlib.Path, to: str):
        self._path, self._role, self._config, self._to = path, role, config, to
        self._folder = pathlib.Path(os.path.realpath(folder))
        self._report = run_dir.read_report(path)
        self._learned = dict.fromkeys((self._report or {}).get("generators", {}))
        if self._folder.exists() and not self._folder.is_dir():
            raise UserError(folder, "is not a folder", _OTHER)
        if self._folder.exists() and any(self._folder.iterdir()):
            raise UserError(folder, "is not empty", _OTHER)
        run_dir.check_path(self._folder)
        check_writable(self._folder.parent, "choose an --output that can be written")

    def run(self, network, learned: Mapping[str, pathlib.Path | None] | None = None) -> str:
        """Writes the folder.

        Args:
          network: such as `portable.Network`.
          learned: the runs of the generators that a segmenter learned with, see `runs.generators_of`; one that is not
            named counts as lost.

        Returns:
          a line on what was written, for the user.

        Raises:
          UserError: the format cannot hold the network.
          MachineError: a file cannot be written.
        """
        self._learned.update(learned or {})
        with _replacing_folder(self._folder) as folder:
            network.save(folder, self._to)
            write_json(folder / "preprocessing.json", self.preprocessing(), ROOM)
            whole, _, note = self._repeated()
            (folder / f"{whole.name}.py").write_text(program(whole, note), encoding="utf-8")
            (folder / "MODEL_CARD.md").write_text(self.card(), encoding="utf-8")
        return printable(f"{self._folder}: {_NETWORKS[self._role]}, {FILES[self._to]}; see MODEL_CARD.md")

    def preprocessing(self) -> dict[str, Any]:
        """What a program must know to use the network, JSON-able."""
        data, task = self._config.data, task_of(self._config)
        of_phase = data.reader == "acdc" and data.phase in acdc_reader.PHASES
        return {
            "tfaug": tfaug.__version__,
            "run": self._path.absolute().name,
            "run_id": run_dir.identity(self._path),
            "network": self._role,
            "format": self._to,
            "file": FILES[self._to],
            "inputs": self._inputs(),
            "outputs": self._outputs(),
            "channels": list(task.channels),
            "classes": [
                {"index": index, "name": name, "label": label}
                for index, (name, label) in enumerate({"background": 0, **task.structures}.items())
            ],
            "slice_axis": data.slice_axis,  # "auto": see the steps
            "phase": data.phase if of_phase else None,
            "n4": {"shrink": data.n4_shrink} if data.n4_shrink else None,
            "percentiles": list(PERCENTILES),
            "resolution_mm": data.resolution,
            "image_size": data.image_size,
            "steps": list(_steps(self._config)),
        }

    def card(self) -> str:
        """The model card, Markdown."""
        _, command, note = self._repeated()
        return "\n".join(_card(self._path, self._role, self._config, self._report, self._to, command, note))

    def _inputs(self):
        data, task = self._config.data, task_of(self._config)
        slices = ["batch", data.image_size, data.image_size]
        found = {
            "image": {
                "shape": [*slices, len(task.channels)],
                "about": "prepared slices: batch, rows along X, columns along Y, channels in the order of `channels`",
            }
        }
        if self._role != "segmenter":
            found["z"] = {"shape": ["batch", Z_DIM], "about": "noise, drawn from a unit Gaussian for each slice"}
        if self._role == "deform":
            about = "one-hot label or probabilities of the slices, in the order of `classes`"
            found["label"] = {"shape": [*slices, task.num_classes], "about": about}
        return {name: {**one, "type": "float32"} for name, one in found.items()}

    def _outputs(self):
        inputs, classes = self._inputs(), task_of(self._config).num_classes
        image = inputs["image"]["shape"]
        about = {
            "segmenter": {"logits": "before the softmax, in the order of `classes`"},
            "deform": {
                "field": "v in pixels (row, column); the generated image at x is the image at x - v(x), bilinearly",
                "generated_image": "the image moved by the field",
                "generated_label": "the label moved by the field; soft",
            },
            "intensity": {
                "field": f"{'in (-1, 1), ' if limits_intensity(self._config) else ''}in units of the prepared image",
                "generated_image": "the image plus the field; its label is that of the image",
            },
        }[self._role]
        last = {"logits": classes, "field": 2, "generated_label": classes} if self._role != "intensity" else {}
        return {
            name: {"shape": [*image[:3], last.get(name, image[3])], "about": text, "type": "float32"}
            for name, text in about.items()
        }

    def _repeated(self) -> tuple[Config, str, str]:
        """The config and the command that train the network again, and what a reader must know of them or ""."""
        return _repeated(self._path, self._config, self._report, self._learned)


def _steps(config: Config) -> Iterator[str]:
    """The steps from a scan to its slices, in order."""
    data = config.data
    if config.data.slice_axis == "auto":
        rule = "the axis with a single slice, else the one with the largest spacing; of several, the last"
        yield f"find the sliced axis: {rule} (spacings are equal if they differ by at most {EQUAL_SPACING:.1%})"
    yield "move the sliced axis to the end and keep the order of the others: [X, Y, Z] of each channel"
    if data.n4_shrink:
        every = "every pixel" if data.n4_shrink == 1 else f"every {data.n4_shrink}th pixel in plane"
        yield f"divided by the bias field that N4 finds on {every}; negative values are first shifted up to 0"
    low, high = PERCENTILES
    yield f"(x - p{low}) / (p{high} - p{low}) with the percentiles of the channel's whole volume, not clipped"
    how = "skimage.transform.resize with order=1, mode='constant', anti_aliasing=False"
    yield f"each slice by itself resized bilinearly to pixels of {data.resolution:g} mm ({how})"
    yield f"cropped or padded with 0 about its centre to {data.image_size} x {data.image_size} pixels, float32"


def _repeated(
    path: pathlib.Path, config: Config, report: Mapping[str, Any], learned: Mapping[str, pathlib.Path | None]
) -> tuple[Config, str, str]:
    """See `Export._repeated`; none contains paths of this machine."""
    if "generator" in report:
        flags = ["--stage=aug", f"--gen={report['generator']}"]
    else:
        flags = [*([] if config.splits.test else ["--stage=seg"]), f"--aug={report['method']}"]
        for name, folder in generators_of(path, config, report).items():
            if config.generators[name]:
                flags.append(f"--config.generators.{name}=RUNS/{folder.name}")
    configs = [Config(run_dir.read_config(folder)) for folder in learned.values() if folder]
    whole = whole_config(config, configs).to_dict()
    default = acdc.get_config()
    whole["data"]["cache_dir"], whole["generators"] = default.data.cache_dir, default.generators.to_dict()
    if whole["data"]["root"]:
        whole["data"]["root"] = pathlib.Path(whole["data"]["root"]).name
        flags.append("--config.data.root=DIR")
    command = ["tfaug", "train", f"--config={config.name}.py", *flags]
    return Config(_tuples(whole)), shlex.join(command), about_lost(learned)


def _tuples(value):
    """Turns the lists of JSON into the tuples of a config."""
    if isinstance(value, Mapping):
        return {key: _tuples(one) for key, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


@contextlib.contextmanager
def _replacing_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder beside `path`, which is renamed to it at the end of the block, or removed if that fails.

    Raises:
      UserError: another process writes it.
      MachineError: it cannot be written.
    """
    part = path.with_name(f"{PART}{path.name}")
    with machine_errors(path, ROOM):
        part.mkdir(parents=True, exist_ok=True)
        with run_dir.locked(part, "--output"):
            try:
                for left in part.iterdir():  # left by a killed process
                    if left.name != "lock":
                        shutil.rmtree(left) if left.is_dir() else left.unlink()
                yield part
                (part / "lock").unlink()
                for file in (*part.rglob("*"), part):
                    sync(file)
                os.rename(part, path)
                sync(path.parent)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise


_LOADING = {
    "keras": 'model = keras.models.load_model("model.keras", compile=False)',
    "savedmodel": 'model = tf.saved_model.load("saved_model").signatures["serving_default"]',
    "onnx": 'model = onnxruntime.InferenceSession("model.onnx")',
}


def _card(path, role, config, report, to, command, note) -> Iterator[str]:
    """The lines of the model card."""
    data, task = config.data, task_of(config)
    name = path.absolute().name
    learned = f"the generator {report['generator']!r}" if "generator" in report else f"the method {report['method']!r}"
    root = pathlib.Path(data.root).name if data.root else "the built-in cohort (simulated hearts)"
    yield f"# {name}\n"
    yield f"The network is {_NETWORKS[role]}, written by tfaug {tfaug.__version__} from the run `{name}`"
    yield f"(`{run_dir.identity(path)}`): {learned} of tfaug, after Chaitanya et al. (IPMI 2019)."
    yield f"It was trained in {config.precision}, and is float32 here, with the same weights.\n"
    yield "## Use\n"
    yield "`preprocessing.json` tells how scans are prepared, and names inputs and outputs with shapes and units.\n"
    yield f"    {_LOADING[to]}\n"
    if to == "keras":
        yield "Keras is that of TensorFlow 2.15, or tf-keras. If there is a `layers.py` here, it loads the model:"
        yield '`import layers; model = layers.load("model.keras")`.\n'
    own = sorted(value for value in config.model.to_dict().values() if isinstance(value, str) and ":" in value)
    if own:
        yield f"Networks of the user's own: {', '.join(own)}; Keras needs the layers that they define.\n"
    yield "**Intended use**: research on segmentation with few labels. Not a medical device; not for diagnosis or"
    yield "treatment. Look at masks before you use them.\n"
    yield "**Not tried on**: whatever is not in the data below, as other scanners, sequences, centres, diseases and"
    yield f"ages; other channels than {', '.join(task.channels)}; other structures than {', '.join(task.names)}."
    yield from _range(report)
    yield "\n## Data\n"
    yield f"{root}, layout `{data.reader}`. Structures and their label values: "
    yield f"{', '.join(f'{label} {structure}' for structure, label in task.structures.items())}.\n"
    yield "| split | cases | |\n| --- | --- | --- |"
    for split in SPLITS:
        members = cases(config, split)
        shown = f"labelled (N_L = {config.num_labelled}, set {config.labelled_set})" if split == "labelled" else split
        yield f"| {shown} | {len(members)} | {', '.join(members)} |"
    kept = "choose the best step" if _kept_best(config, role) else "choose nothing: the last step is kept"
    yield f"\nLabelled cases are learned from, validation cases {kept}. Unlabelled scans were used without"
    yield "labels, where the method uses them. Test cases were not used.\n"
    yield "## Scores\n"
    yield from _scores(path, role, report, config)
    if report.get("warnings"):
        yield "\nWarnings of the training:\n"
        yield from (f"- {warning}" for warning in report["warnings"])
    yield "\n## Training it again\n"
    yield f"    {command}\n"
    yield f"`{config.name}.py` is beside this file{'; DIR is the folder of the data' if data.root else ''}."
    if "--config.generators" in command:
        yield "RUNS is the folder of the generators' runs."
    if note:
        yield f"\n**{note}**\n"
    if report.get("method", "none") not in METHODS:
        method = report["method"]
        yield f"`{method}` is the user's own: name it with its module, as `--aug=my_module:{method}`."
    yield "\n## Licence\n"
    yield "tfaug, and the code in this folder, are Apache-2.0. Whether and how the weights may be passed on depends on"
    yield "the terms of the data that they were learned from.\n"
    yield "## Citation\n"
    yield _CITATION


def _range(report) -> Iterator[str]:
    """The voxel sizes of the scans, if the report has them."""
    spacings = [one["spacing"] for one in (report.get("scans") or {}).values()]
    if spacings:
        pixels = [mm for spacing in spacings for mm in spacing[:2]]
        slices = [spacing[2] for spacing in spacings]
        yield f"Pixels of its training and validation scans were {_span(pixels)} mm, slices {_span(slices)} mm apart."


def _span(values):
    least, most = f"{min(values):.3g}", f"{max(values):.3g}"
    return least if least == most else f"{least} to {most}"


def _kept_best(config, role):
    return config["segment" if role == "segmenter" else "augment"].keep == "best"


def _scores(path, role, report, config) -> Iterator[str]:
    """The Dice of a segmenter on the splits it was evaluated on; for a generator, what its run reports."""
    best = f"{report['best']:.3f} after {report['best_step']} steps"
    if role != "segmenter":
        yield f"A generator has no Dice of its own. Mean validation Dice of the segmenter that learned with it: {best}."
        yield f"What its instruments say: {report.get('verdict', 'unknown')}."
        return
    chosen = ", by which the best step was chosen" if _kept_best(config, role) else ""
    yield f"Mean validation Dice{chosen}: {best}."
    found = False
    for split in ("test", "validation"):
        folder = path / "evaluation" / split
        if identity.is_of(folder, run_dir.identity(path)) and (folder / "dice.csv").is_file():
            found = True
            table = tables.read(folder / "dice.csv")
            scored = table.case.unique()
            yield f"\nDice on the scans' own grids, {split}, {counted(len(scored), 'case')} ({', '.join(scored)}):\n"
            yield "| structure | mean | standard deviation | lowest | highest |\n| --- | --- | --- | --- | --- |"
            means = table.groupby("case", sort=False).dice.mean()
            rows = {**dict(iter(table.groupby("structure", sort=False).dice)), "mean": means}
            for name, dice in rows.items():
                numbers = (dice.mean(), dice.std(ddof=0), dice.min(), dice.max())
                yield f"| {name} | {' | '.join(f'{number:.3f}' for number in numbers)} |"
    if not found:
        yield "It was not evaluated on the scans' own grids."


_CITATION = """\
```bibtex
@inproceedings{chaitanya2019semi,
  title     = {Semi-Supervised and Task-Driven Data Augmentation},
  author    = {Chaitanya, Krishna and Karani, Neerav and Baumgartner, Christian F. and Becker, Anton and Donati, Olivio
               and Konukoglu, Ender},
  booktitle = {Information Processing in Medical Imaging (IPMI)},
  year      = {2019}
}
```
"""

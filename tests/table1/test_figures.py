import pathlib

import nibabel
import numpy as np
import pytest
import tensorflow as tf
from data_.patients import anatomy
from matplotlib import colors
from matplotlib import image as mpl_image

from tfaug import evaluation, pictures
from tfaug.augment.methods import AFFINE, PAPER, Method
from tfaug.config import Config, segmenter_path
from tfaug.configs import phantom
from tfaug.data import cache
from tfaug.data.preprocess import Grid, Prepared
from tfaug.data.task import Task
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError
from tfaug.experiment import drawing, identity, networks, runs, sources
from tfaug.table1 import figures, paper, results, table
from tfaug.table1.results import Result
from tfaug.types import Volume

PATIENTS = ("A", "B", "C")
TASK = Task({"RV": 1, "Myo": 2, "LV": 3})


class Data:
    """As `sources.Data`, of `PATIENTS`; files have their axes in another order than volumes if `axis` is not 2.

    The scans' files are written where they are read, into `folder`; without one there are none.
    """

    tag, digest = "ES", "as evaluated"

    def __init__(self, task=TASK, axis=2, labelled=(), folder=None):
        self.task, self.axis, self.dataset, self._labelled, self.folder = task, axis, self, labelled, folder

    def read(self, case):
        image, label = anatomy(PATIENTS.index(case))
        channels = np.stack([image, -image], axis=-1).astype(np.float32)
        path = pathlib.Path(self.folder or "", f"{case}.nii.gz")
        if self.folder:
            nibabel.save(nibabel.Nifti1Image(np.moveaxis(image, 2, self.axis), np.diag([1.5, 1.25, 8, 1])), path)
        return Volume(case, channels, label, (1.5, 1.25, 8.0), self.axis, path)

    def load(self, names):
        assert names == ["labelled"]

    def __getitem__(self, name):
        return self._labelled

    def mask(self, label):
        """As a file holds it."""
        return np.moveaxis(self.task.to_values(label), 2, self.axis)


@pytest.fixture
def config(tmp_path):
    values = phantom.get_config()
    values.data.root = str(tmp_path / "data")
    values.data.structures, values.data.channels = tuple(TASK.structures.items()), TASK.channels
    values.splits.test = PATIENTS
    return values


@pytest.fixture
def data(monkeypatch, tmp_path):
    """Of the runs; tests may change its task and axis."""
    data = Data(folder=tmp_path)
    monkeypatch.setattr(sources, "Data", lambda config: data)
    monkeypatch.setattr(cache, "digests", lambda data, requests: {one.case: data.digest for one in requests})
    return data


def result(method, dice, n=1, labelled_set=1, seed=0, num_structures=3):
    dice = {case: tuple(np.broadcast_to(values, num_structures).tolist()) for case, values in zip(PATIENTS, dice)}
    return Result(method, n, labelled_set, seed, 500, 0.5, dice, 60.0, "abc", 1, "2.15.1")


def compute(found, config, task=TASK, methods=PAPER):
    return table.compute(found, results.decisive(config, task.names), methods)


@pytest.fixture
def figure(monkeypatch):
    """Makes the plots return their figures rather than pictures of them."""
    monkeypatch.setattr(pictures, "rendered", lambda figure: figure)


def test_boxes_hold_every_run_and_patient_in_the_structures_colours(config, figure):
    found = [
        result("none", [(0.1, 0.5, 0.9), (0.2, 0.5, 0.9), (0.3, 0.5, 0.9)]),
        result("none", [(0.4, 0.5, 0.9), (0.5, 0.5, 0.9), (np.nan, 0.5, 0.9)], seed=1),
        result("adv_ssl", [0.7, 0.7, 0.7], n=3),
    ]
    above, below = figures.box_plots(compute(found, config)).axes
    medians = [line.get_ydata()[0] for line in above.lines if line.get_color() == "black" and line.get_linewidth() > 1]
    assert medians[:3] == pytest.approx([0.3, 0.5, 0.9])  # 0.3 of 0.1 to 0.5; methods without runs have NaN
    boxes = above.patches[:3]
    assert [box.get_facecolor() for box in boxes] == [colors.to_rgba(colour) for colour in TASK.colours.values()]
    runs = [[text.get_text() for text in axes.texts][:-1] for axes in (above, below)]
    assert runs == [["2", *"0" * 12], [*"0" * 12, "1"]]
    assert [label.get_text() for label in below.get_xticklabels()] == list(paper.ROWS)


def test_boxes_of_two_structures_and_of_a_users_methods(config, figure):
    task, methods = Task({"wall": 1, "lumen": 2}), {"blur": Method(AFFINE), "aff": PAPER["aff"]}
    found = [result(method, [0.1, 0.5, 0.9], num_structures=2) for method in ("aff", "blur", "none")]
    (axes,) = figures.box_plots(compute(found, config, task, methods)).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["blur", "aff"]
    middles = [np.mean(box.get_path().get_extents().intervalx) for box in axes.patches]
    assert middles == pytest.approx([-0.195, 0.195, 0.805, 1.195])
    assert [box.get_facecolor() for box in axes.patches] == 2 * [colors.to_rgba(c) for c in task.colours.values()]


def columns(axes):
    """The names at the left and at the right of a panel, from top to bottom."""
    texts = sorted((text for text in axes.texts if text.get_fontweight() != "bold"), key=lambda t: t.get_position()[1])
    return [[text for text in texts if (text.get_position()[0] > 0.5) == right] for right in (False, True)]


def test_the_order_has_the_best_on_top_and_lines_join_the_same_method(config, figure):
    values = {"none": 0.9, "aff": 0.5, "aff_rd": 0.6, "aff_gd_gi": 0.8}
    (axes,) = figures.order(compute([result(m, [v] * 3) for m, v in values.items()], config)).axes
    left, right = columns(axes)
    assert [text.get_text() for text in left] == ["aff_gd_gi", "aff_rd", "aff", "none"]
    assert [text.get_text().split() for text in right] == [
        ["0.900", "none"],
        ["0.800", "aff_gd_gi"],
        ["0.600", "aff_rd"],
        ["0.500", "aff"],
    ]
    ends = {tuple(line.get_ydata()): line.get_color() for line in axes.lines}
    assert ends == {
        (3, 0): figures.RISEN,
        (0, 1): figures.STEADY,
        (1, 2): figures.STEADY,
        (2, 3): figures.STEADY,
    }
    falling = [result(m, [v] * 3) for m, v in {"none": 0.3, "aff": 0.2, "aff_gd_gi": 0.1}.items()]
    (axes,) = figures.order(compute(falling, config)).axes
    assert {tuple(line.get_ydata()): line.get_color() for line in axes.lines}[0, 2] == figures.FALLEN


def test_the_order_leaves_out_what_the_paper_lacks(config, figure):
    methods = {"blur": Method(AFFINE), "none": Method(), "aff": Method(AFFINE)}
    (axes,) = figures.order(compute([result(m, [0.5] * 3) for m in methods], config, methods=methods)).axes
    assert [text.get_text() for text in columns(axes)[0]] == ["aff", "none"]
    with pytest.raises(UserError, match="the order of methods"):
        figures.order(compute([result("blur", [0.5] * 3)], config, methods={"blur": Method(AFFINE)}))


def test_there_is_no_order_of_one_method(config):
    with pytest.raises(UserError, match="needs results of two"):
        figures.order(compute([result("none", [0.1] * 3), result("none", [0.1] * 3, n=3)], config))
    with pytest.raises(UserError, match="the paper has results with 1 or 3 labelled volumes"):
        figures.order(compute([result("none", [0.1] * 3, n=40), result("aff", [0.1] * 3, n=40)], config))


def train(config, workdir, found, shift, data=None):
    """Leaves what a finished and evaluated run leaves: its config and masks, the references moved by `shift` rows."""
    data = data or Data()
    values = config.copy_and_resolve_references()
    values.num_labelled, values.labelled_set, values.seed = found.num_labelled, found.labelled_set, found.seed
    run = segmenter_path(values, workdir, found.method)
    saved = {key: value for key, value in values.to_dict().items() if key not in ("augment", "methods")}
    with run_dir.RunDir(run, saved):
        pass
    out = run / "evaluation" / "test"
    for number, case in enumerate(found.dice):
        path = evaluation.mask_file(out, data.read(case), data.tag)
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = data.mask(np.roll(anatomy(number)[1], shift, axis=0))
        nibabel.save(nibabel.Nifti1Image(mask, np.diag([1.5, 1.25, 8, 1])), path)
    for name in ("dice.csv", "summary.txt", "indices.csv", "agreement.png"):
        (out / name).touch()
    identity.mark_evaluated(out, identity.of_evaluation("model", dict.fromkeys(found.dice, data.digest), "reloaded"))
    return out


@pytest.fixture
def overlay(monkeypatch):
    """What `overlay` was given."""
    given = {}

    def remember(images, masks, titles, colours):
        given.update(images=images, masks=masks, titles=titles, colours=colours)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(pictures, "overlay", remember)
    return given


def test_figure_2_shows_the_median_patient_under_every_method(config, data, overlay, tmp_path):
    found = [result("aff_rd", [0.1, 0.9, 0.4]), result("none", [0.3, 0.5, 0.6]), result("none", [0.3] * 3, seed=1)]
    shifts = (2, 0, 5)
    for run, shift in zip(found, shifts):
        train(config, tmp_path / "runs", run, shift)
    figures.segmentations(compute(found, config), 1, config, tmp_path / "runs")
    image, label = anatomy(2)  # means over the methods: A 0.2, B 0.7, C 0.5
    image_title, reference, none, aff_rd = overlay["titles"]
    assert image_title.startswith("C, slice") and reference == "reference" and overlay["colours"] == TASK.colours
    z = int(image_title.split()[-1]) - 1
    assert z == evaluation.representative_slices(label)[len(evaluation.representative_slices(label)) // 2]
    window = evaluation.labelled_window(label[..., z : z + 1], scale=figures.SURROUNDINGS)
    np.testing.assert_array_equal(overlay["images"][0], image.astype(np.float32)[(*window, z)])
    assert not overlay["masks"][0].any()
    for mask, shift in zip(overlay["masks"][1:], (0, 0, 2)):
        np.testing.assert_array_equal(mask, np.roll(label, shift, axis=0)[(*window, z)])
    assert none.split() == ["none", "1.00"] and aff_rd.split()[0] == "aff_rd" and float(aff_rd.split()[1]) < 1


def test_figure_2_reads_masks_in_the_users_values_and_the_axes_of_the_files(config, data, overlay, tmp_path):
    data.task, data.axis = Task({"tumour": 255, "liver": 85, "vessel": 170}), 0
    found = [result("none", [0.1, 0.9, 0.4])]
    train(config, tmp_path / "runs", found[0], 2, data)
    figures.segmentations(compute(found, config, data.task), 1, config, tmp_path / "runs")
    label = anatomy(2)[1]
    z = int(overlay["titles"][0].split()[-1]) - 1
    window = evaluation.labelled_window(label[..., z : z + 1], scale=figures.SURROUNDINGS)
    np.testing.assert_array_equal(overlay["masks"][2], np.roll(label, 2, axis=0)[(*window, z)])
    assert list(overlay["colours"]) == ["liver", "vessel", "tumour"]


def test_figure_2_shows_the_methods_of_the_config_in_its_order(config, data, overlay, tmp_path):
    found = [result(method, [0.1, 0.9, 0.4]) for method in ("aff", "blur", "none")]
    for run in found:
        train(config, tmp_path / "runs", run, 0)
    got = compute(found, config, methods={"none": Method(), "blur": Method(AFFINE)})
    figures.segmentations(got, 1, config, tmp_path / "runs")
    assert [title.split()[0] for title in overlay["titles"][2:]] == ["none", "blur"]


def test_figure_2_shows_no_mask_that_does_not_belong_to_its_scan(config, data, tmp_path):
    """And says so in a line."""
    results.save(tmp_path / "results", result("none", [0.1, 0.9, 0.4]), config, TASK.names)
    out = train(config, tmp_path / "runs", result("none", [0.1, 0.9, 0.4]), 2)

    def drawn():
        return figures.draw(tmp_path / "results", config, tmp_path / "runs", PAPER)[0]

    data.digest = "of a mended label"
    assert "figure2-n1.png not drawn: C: the scan or its label has changed since it was evaluated" in drawn()
    data.digest = Data.digest
    assert drawn() == str(tmp_path / "results/figure2-n1.png")
    evaluated = identity.of_evaluation("model", {"A": data.digest}, "reloaded")
    identity.mark_evaluated(out, evaluated)
    assert "holds no intact evaluation of C" in drawn()
    identity.mark_evaluated(out, {**evaluated, "scans": {"C": data.digest}})
    mask = nibabel.Nifti1Image(anatomy(2)[1], np.diag([1.5, 1.25, 8, 1]))
    turned = mask.as_reoriented([[0, -1], [1, 1], [2, 1]])
    for other, problem in (
        (mask.slicer[1:], r"has the shape (19, 23, 3), its scan (20, 23, 3); evaluate the run again"),
        (turned, "is mirrored or rotated against its scan; evaluate the run again"),
    ):
        nibabel.save(other, evaluation.mask_file(out, data.read("C"), data.tag))
        assert problem in drawn()


def test_figure_2_refuses_data_of_other_structures(config, data, overlay, tmp_path):
    found = [result("none", [0.1, 0.9, 0.4])]
    train(config, tmp_path / "runs", found[0], 2)
    with pytest.raises(UserError, match="has kidney, the results have RV, Myo, LV"):
        data.task = Task({"kidney": 1})
        figures.segmentations(compute(found, config), 1, config, tmp_path / "runs")


def test_figure_2_takes_the_fullest_set_and_seed_of_its_count(config, data, overlay, tmp_path):
    found = [
        result("none", [0.1, 0.2, 0.3]),
        result("none", [0.1, 0.2, 0.3], labelled_set=2),
        result("aff", [0.1, 0.2, 0.3], labelled_set=2),
        result("aff", [0.1, 0.2, 0.3], labelled_set=3),
        result("aff_rd", [0.1, 0.2, 0.3], n=3),
    ]
    for run in found:
        train(config, tmp_path / "runs", run, 0)
    train(config, tmp_path / "runs", result("aff_gd", [0.1] * 3), 0)  # has no result
    figures.segmentations(compute(found, config), 1, config, tmp_path / "runs")
    assert [title.split()[0] for title in overlay["titles"][2:]] == ["none", "aff"]


def test_runs_of_another_config_are_not_shown(config, data, tmp_path):
    found = [result("none", [0.1, 0.2, 0.3])]
    other = config.copy_and_resolve_references()
    other.checkpoint_every = 7  # changes no number
    train(other, tmp_path / "kept", found[0], 0)
    figures.segmentations(compute(found, config), 1, config, tmp_path / "kept")
    other.segment.num_steps = 7
    train(other, tmp_path / "runs", found[0], 0)
    with pytest.raises(UserError, match="has no evaluated run for N_L = 1"):
        figures.segmentations(compute(found, config), 1, config, tmp_path / "runs")


def test_r1_runs_and_results_of_another_generator_are_not_shown_where_a_method_uses_it(config, data, overlay, tmp_path):
    found = [result("none", [0.1, 0.2, 0.3]), result("aff_gd", [0.1, 0.2, 0.3])]
    for run in found:
        train(config, tmp_path / "runs", run, 0)
    report = '{"best": 0.5, "best_step": 1, "generators": {"deform": "digest"}}'
    (segmenter_path(config, tmp_path / "runs", "aff_gd") / "report.json").write_text(report)
    config.generators.deform = "/elsewhere/another"
    figures.segmentations(compute(found, config), 1, config, tmp_path / "runs")
    assert [title.split()[0] for title in overlay["titles"][2:]] == ["none"]

    results.save(tmp_path / "results", found[1]._replace(generators={"deform": ""}), config, TASK.names)
    config.generators.deform = str(tmp_path / "named")
    run_dir.RunDir(config.generators.deform, {}).finish({"best": 0.5, "best_step": 1})
    lines = figures.draw(tmp_path / "results", config, tmp_path / "runs", PAPER)
    assert "figure2-n1.png not drawn" in lines[0] and "was made with another generator 'deform'" in lines[0]


def test_r1_runs_of_a_data_folder_that_is_called_otherwise_now_are_shown(config, data, overlay, tmp_path):
    found = [result("none", [0.1, 0.2, 0.3])]
    train(config, tmp_path / "runs", found[0], 0)
    config.data.root = str(tmp_path / "renamed")
    figures.segmentations(compute(found, config), 1, config, tmp_path / "runs")
    assert [title.split()[0] for title in overlay["titles"][2:]] == ["none"]


@pytest.fixture
def generator(monkeypatch):
    """A generator of seed 1, set 2, whose field is the first component of z everywhere; and what is drawn of it."""
    image, given = np.random.default_rng(0).normal(size=(6, 32, 32, 2)).astype(np.float32), {}
    label = np.zeros(image.shape[:-1], np.uint8)
    label[1:6, 8:16, 8:16] = 3
    scan = Prepared("A", image, label, Grid((32, 32, 6), (1.0, 1.0, 8.0), 32, 1.0), None)

    def load(config: Config, workdir, name):
        if (config.labelled_set, config.seed) != (2, 1):
            raise UserError(f"set {config.labelled_set}", "there is no generator", "train it")
        shape = image.shape[1:]  # two components of a deformation, or two channels
        return lambda inputs, training: tf.ones((1, *shape)) * tf.round(4 * inputs[1][:, :1])[..., None, None]

    monkeypatch.setattr(networks, "set_up_tensorflow", lambda config: None)
    monkeypatch.setattr(runs, "load_generator", load)
    monkeypatch.setattr(sources, "Data", lambda config: Data(labelled=[scan]))
    monkeypatch.setattr(pictures, "draws_panel", lambda *arguments: given.update(arguments=arguments))
    return scan, given


@pytest.mark.parametrize("name", ["deform", "intensity"])
def test_figure_3_shows_what_the_first_generator_makes_of_one_slice(config, generator, name, tmp_path):
    scan, given = generator
    found = [result("aff_gd_gi", [0.1] * 3, labelled_set=s, seed=seed) for s, seed in ((1, 0), (2, 0), (2, 1), (3, 0))]
    figures.generated(compute(found, config), name, config, tmp_path)
    image, label, fields, images, labels, kind, colours = given["arguments"]
    assert kind == name and len(fields) == drawing.DRAWN_Z and len({field.flat[0] for field in fields}) > 1
    assert colours == TASK.colours
    np.testing.assert_array_equal(image, scan.image[3, ..., 0])
    for field, new_image, new_label in zip(fields, images, labels):
        if kind == "intensity":
            np.testing.assert_allclose(new_image, image + field[..., 0], atol=1e-6)
            np.testing.assert_array_equal(new_label, label)
        else:
            inside = slice(12, 20)
            moved = np.roll(image, (int(field.flat[0]),) * 2, (0, 1))
            np.testing.assert_allclose(new_image[inside, inside], moved[inside, inside], atol=1e-5)
            np.testing.assert_array_equal(new_label, np.roll(label, (int(field.flat[0]),) * 2, (0, 1)))


def test_what_is_missing_is_said_in_a_line_each_and_the_rest_is_drawn(config, data, tmp_path):
    folder = tmp_path / "results"
    for method, row in paper.ROWS.items():
        for n in (1, 3):
            results.save(folder, result(method, [row.mean(n)] * 3, n), config, TASK.names)
    train(config, tmp_path / "runs", result("aff", [0.1, 0.2, 0.3]), 1)
    lines = figures.draw(folder, config, tmp_path / "runs", PAPER)
    drawn = ["figure2-n1.png", "boxplots.png", "order.png"]
    assert sorted(path.name for path in folder.glob("*.png")) == sorted(drawn)
    assert [line for line in lines if "not drawn" not in line] == [str(folder / name) for name in drawn]
    missing = [line for line in lines if "not drawn" in line]
    assert [line.split()[0] for line in missing] == ["figure2-n3.png", "figure3-deform.png", "figure3-intensity.png"]
    assert "--stage=aug --gen=deform" in missing[1]
    for name in drawn:
        assert (folder / name).stat().st_size < 200_000
        assert mpl_image.imread(folder / name).std() > 0.02


def test_figure_3_is_of_generators_that_the_methods_use(config, tmp_path):
    results.save(tmp_path / "results", result("aff_gd", [0.1, 0.2, 0.3]), config, TASK.names)
    methods = {name: PAPER[name] for name in ("aff", "aff_gd")}
    lines = figures.draw(tmp_path / "results", config, tmp_path / "runs", methods)
    assert [line.split()[0] for line in lines if "figure3" in line] == ["figure3-deform.png"]


def test_runs_are_left_alone_if_the_config_is_not_that_of_the_results(config, tmp_path):
    folder = tmp_path / "results"
    results.save(folder, result("aff", [0.1, 0.2, 0.3]), config, TASK.names)
    steps, config.segment.num_steps = config.segment.num_steps, 7
    lines = figures.draw(folder, config, tmp_path / "runs", PAPER)
    assert sum(f"segment.num_steps: {steps} -> 7" in line for line in lines) == 3
    assert lines[-2:] == [str(folder / "boxplots.png"), lines[-1]] and "needs results of two" in lines[-1]


def test_no_results_are_one_line(config, tmp_path):
    with pytest.raises(UserError, match="holds no results"):
        figures.draw(tmp_path, config, tmp_path, PAPER)

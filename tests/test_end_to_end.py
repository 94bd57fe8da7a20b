"""The programs as a user runs them, at a tiny size, in processes of their own."""

import base64
import json
import pathlib
import re
import shlex
import shutil

import nibabel
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from fast_networks import FAST
from programs import run

from benchmarks import soak
from tfaug.commands import train
from tfaug.experiment import sources
from tfaug.jobs import load_config
from tfaug.phantom import cohort as phantom
from tfaug.table1 import results

ROOT = pathlib.Path(__file__).parent.parent

TINY = [
    "--config.data.image_size=32",
    "--config.data.resolution=5.5",
    "--config.data.n4_shrink=0",
    "--config.model.filters=2",
    "--config.augment.num_steps=6",
    "--config.augment.warmup_steps=2",
    "--config.augment.eval_every=2",
    "--config.segment.num_steps=6",
    "--config.segment.eval_every=2",
    "--config.report_every=2",
    "--config.picture_every=6",
    "--config.checkpoint_every=4",
    "--config.splits.unlabelled=('patient016','patient036')",
    "--config.splits.validation=('patient011',)",
    "--config.splits.test=('patient007','patient027')",
    *FAST,
]
REAL = ("--config.model.segmenter=unet", "--config.model.generator=conditional", "--config.model.discriminator=dcgan")


@pytest.fixture
def cohort(hearts):
    return hearts


def error_line(result):
    """The one line that a failed command prints, after its exit status was checked."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


@pytest.fixture
def trained(trained_hearts):
    return trained_hearts


@pytest.fixture
def command(cohort):
    return [f"--config.data.root={cohort}", *TINY]


NAMES = [
    "phantom-n1-set1-aug-deform-seed0",
    "phantom-n1-set1-aug-intensity-seed0",
    "phantom-n1-set1-seg-aff_gd_gi-seed0",
]


def test_one_command_runs_all_stages_and_prints_the_table(trained):
    folder, stdout = trained
    assert sorted(path.name for path in (folder / "runs").iterdir()) == NAMES
    for word in ("RV", "Myo", "LV", "mean", "tensorboard --logdir runs"):
        assert word in stdout
    out = f"runs/{NAMES[2]}/evaluation/test"
    lines = stdout.splitlines()[-6:-1]
    assert [line.split() for line in lines if line] == [
        ["table", f"{out}/summary.txt"],
        ["Dice", f"{out}/dice.csv"],
        ["masks", f"{out}/masks"],
        ["pictures", f"{out}/pictures"],
    ]
    assert all((folder / line.split()[1]).exists() for line in lines if line)
    report = json.loads((folder / "runs" / NAMES[2] / "report.json").read_text())
    assert 0 <= report["best"] <= 1 and report["best_step"] in (2, 4, 6)
    assert len(report["commits"]) == 1  # of the program that trained
    configs = [json.loads((folder / "runs" / name / "config.json").read_text()) for name in NAMES[:2]]
    losses = [config["config"]["augment"]["adversarial_loss"] for config in configs]
    assert losses == ["non_saturating", "energy"]  # of G_V and G_I


def test_v6_a_training_tells_first_what_computes_and_on_how_many_cases(trained):
    _, stdout = trained
    data, machine, *_ = stdout.splitlines()
    assert data.startswith("data: ")  # what is read does not wait for TensorFlow
    pattern = r"CPU, float32, threads: \d+, TensorFlow (\S+); cases: 1 labelled, 1 validation, 2 unlabelled, 2 test"
    assert re.fullmatch(pattern, machine)[1] == tf.__version__


def test_generators_are_validated_after_warm_up_alone(trained):
    folder, _ = trained
    report = json.loads((folder / "runs" / NAMES[0] / "report.json").read_text())
    assert report["best_step"] in (4, 6)


def test_evaluation_leaves_table_masks_and_pictures(trained, cohort):
    folder, _ = trained
    run_folder = folder / "runs" / NAMES[2]
    assert {path.name for path in run_folder.glob("*.png")} == {"batch.png", "segmentation.png"}
    out = run_folder / "evaluation" / "test"
    table = pd.read_csv(out / "dice.csv")
    assert sorted(set(table.case)) == ["patient007", "patient027"] and len(table) == 6
    for case in ("patient007", "patient027"):
        mask = nibabel.load(out / "masks" / f"{case}_ES_prediction.nii.gz")
        expert = nibabel.load(es_label(cohort, case))
        assert mask.shape == expert.shape
        assert set(np.unique(mask.dataobj)) <= {0, 1, 2, 3}
        assert (out / "pictures" / f"{case}.png").stat().st_size > 1000


def es_label(cohort, case):
    info = dict(line.split(": ") for line in (cohort / case / "Info.cfg").read_text().splitlines())
    return cohort / case / f"{case}_frame{int(info['ES']):02d}_gt.nii.gz"


def test_tensorboard_has_losses_dice_pictures_and_config(trained):
    folder, _ = trained
    tags = set()
    for path in (folder / "runs" / NAMES[0]).glob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    assert {
        "loss/segmentation",
        "loss/adversarial",
        "loss/big",
        "loss/discriminator",
        "discriminator/accuracy_fake",
        "discriminator/accuracy_real",
        "field/mean_abs",
        "gradient/segmentation",
        "gradient/adversarial",
        "discriminator/accuracy_held_out",
        "generator/displacement_p95_px",
        "elastic/displacement_p95_px",
        "dice/mean",
        "dice/RV",
        "generator",
        "segmentation",
        "config",
    } <= tags


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"}


def test_a_finished_command_again_says_so_and_changes_nothing(trained, command):
    folder, before_stdout = trained
    before = contents(folder)
    result = run("train.py", *command, cwd=folder)
    assert result.returncode == 0 and result.stdout.count("nothing to do") == 4
    assert contents(folder) == before
    assert result.stdout.splitlines()[-6:] == before_stdout.splitlines()[-6:]


def test_the_same_command_elsewhere_gives_the_same_numbers(trained, command, tmp_path):
    """Two undisturbed runs: every saved variable, score and picture is equal. Those of segmenters: test_faults.py."""
    folder, _ = trained
    assert run("train.py", "--stage=aug", "--gen=deform", *command, cwd=tmp_path).returncode == 0

    def essence(root):
        files = contents(root / "runs" / NAMES[0])
        kept = {path.relative_to(root): data for path, data in files.items() if "tfevents" not in path.name}
        with_paths = ("config.json", "state.json", "manifest.json")  # they name the folders, or hash files that do
        return {path: data for path, data in kept.items() if path.name not in with_paths}

    ours, theirs = essence(folder), essence(tmp_path)
    assert ours.keys() == theirs.keys()
    assert [path for path in ours if ours[path] != theirs[path]] == []


@pytest.mark.parametrize(
    "method",
    [
        "adv_ssl",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("aff_gd_gi_mixup", "none", "aff_rd", "aff_ri", "adv_sl")
        ),
    ],
)
def test_methods_train(method, trained, command, tmp_path):
    """Each kind of row, with the generators that are there already, or the paper's S and D."""
    folder, _ = trained
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in NAMES[:2]:
        shutil.copytree(folder / "runs" / name, runs / name)
    cache, networks = f"--config.data.cache_dir={folder / 'cache'}", REAL if method.startswith("adv") else ()
    result = run("train.py", "--stage=seg", f"--aug={method}", cache, *command, *networks, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (runs / f"phantom-n1-set1-seg-{method}-seed0" / "report.json").exists()


def test_the_released_programs_switches_train(cohort, tmp_path):
    """With its random shares of the batch, G and S before D, and unlabelled scans alone for D."""
    config = f"--config={ROOT / 'configs' / 'released_code.py'}"
    short = ["--config.augment.num_steps=3", "--config.augment.warmup_steps=1", "--config.augment.eval_every=3"]
    flags = [config, f"--config.data.root={cohort}", *TINY, *short, "--stage=aug", "--gen=intensity"]
    result = run("train.py", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs" / "released_code-n1-set1-aug-intensity-seed0" / "report.json").exists()
    *_, pictures, empty, board, following = result.stdout.splitlines()
    assert (pictures, empty) == ("pictures of training: runs/released_code-n1-set1-aug-intensity-seed0", "")
    assert (tmp_path / pictures.split(": ")[1] / "generator.png").exists() and "tensorboard --logdir runs" in board
    expected = ["Next:", "python", str(ROOT / "train.py"), "--stage=seg", "--aug=aff_gi", *flags[:-2]]
    assert shlex.split(following) == expected


def test_a_missing_prerequisite_names_its_command(command, tmp_path):
    line = error_line(run("train.py", "--stage=seg", *command, cwd=tmp_path))
    assert "train.py --stage=aug --gen=deform" in line
    line = error_line(run("evaluate.py", "--split=test", *command, cwd=tmp_path))
    assert "train.py --stage=seg" in line
    assert list(tmp_path.iterdir()) == []


def test_runs_of_another_config_are_not_taken_for_this_one(trained, command, cohort, tmp_path):
    """Neither generators by the second stage, nor a segmenter by the evaluation, nor a run by its own command."""
    folder, _ = trained
    workdir = f"--workdir={folder / 'runs'}"
    for program, *flags in (
        ("train.py", "--stage=seg", "--aug=aff_gi", "--config.augment.lambda_adv=0"),
        ("evaluate.py", "--config.data.n4_shrink=1"),
        ("train.py", "--stage=seg", "--config.segment.learning_rate=0.5"),
    ):
        line = error_line(run(program, *command, workdir, *flags, cwd=tmp_path))
        assert flags[-1].split(".")[-1].split("=")[0] in line and "--config.name" in line
    assert sorted(path.name for path in (folder / "runs").iterdir()) == NAMES


def test_r1_a_result_is_of_the_precision_that_its_folder_names(trained, command, tmp_path):
    """A finished run stays what it is, which its own command says, and a grid of another precision refuses it."""
    folder, _ = trained
    flags = ["--stage=seg", *command, f"--workdir={folder / 'runs'}", "--config.precision=mixed_bfloat16"]
    done = run("train.py", *flags, cwd=tmp_path)
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert f"{NAMES[2]}: was trained in float32, and stays so" in done.stderr
    done = run("train.py", *flags, "--results=results", cwd=tmp_path)
    *_, line = done.stderr.splitlines()  # below warnings, one of them that this machine is slow in bfloat16, if it is
    assert done.returncode == 2 and line.startswith("error: ")
    assert "was trained in float32, and the results are of mixed_bfloat16" in line
    assert not (tmp_path / "results").exists()


def test_r1_a_training_for_a_table_of_another_config_does_not_begin(cohort, tmp_path):
    root = f"--config.data.root={cohort}"
    config = load_config()
    config.data.root = str(cohort)
    config = sources.resolve(config)
    results.bind(tmp_path / "results", config, sources.task_of(config).names)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    flags = ["--stage=seg", "--aug=none", root, *TINY]
    line = error_line(run("train.py", *flags, "--results=results", cwd=tmp_path))
    assert "results: holds results of another config (" in line
    line = error_line(run("train.py", *flags, "--results=thesis", cwd=tmp_path))
    assert "thesis: is not empty and has no config.json of results" in line
    assert {path.name for path in tmp_path.iterdir()} == {"results", "thesis"}  # no run has begun


def mend(root, case):
    """Takes a structure out of a label."""
    label = es_label(root, case)
    image = nibabel.load(label)
    values = np.asarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.where(values == 1, 0, values), image.affine, image.header), label)


def test_r1_c14_a_model_is_what_it_was_trained_on_and_an_evaluation_what_it_scored(trained, cohort, tmp_path):
    folder, _ = trained
    shutil.copytree(folder / "runs" / NAMES[2], tmp_path / "runs" / NAMES[2])
    shutil.copytree(cohort, tmp_path / "renamed")
    table = tmp_path / "runs" / NAMES[2] / "evaluation" / "test" / "dice.csv"
    before = table.read_text()
    flags = ["--config.data.root=renamed", f"--config.data.cache_dir={folder / 'cache'}", *TINY]

    result = run("evaluate.py", *flags, cwd=tmp_path)
    assert result.returncode == 0 and "evaluated before" in result.stdout

    mend(tmp_path / "renamed", "patient007")
    result = run("evaluate.py", *flags, cwd=tmp_path)
    assert result.returncode == 0 and "evaluated before" not in result.stdout
    assert table.read_text() != before

    result = run("evaluate.py", *flags, "--config.splits.test=('patient036',)", cwd=tmp_path)
    assert result.returncode == 2  # it is among the unlabelled ones
    more = ["--config.splits.test=('patient036',)", "--config.splits.unlabelled=('patient016',)"]
    line = error_line(run("evaluate.py", *flags, *more, cwd=tmp_path))
    assert f"{NAMES[2]}: has used cases of the test split itself (patient036: unlabelled)" in line  # by its generators
    more = ["--config.splits.test=('patient027',)", "--config.splits.unlabelled=('patient016',)"]
    result = run("evaluate.py", *flags, *more, cwd=tmp_path)
    assert result.returncode == 0 and "1 case" in result.stdout
    assert set(pd.read_csv(table).case) == {"patient027"}

    shutil.copy(es_label(cohort, "patient011"), es_label(tmp_path / "renamed", "patient002"))
    shutil.copytree(folder / "runs" / NAMES[0], tmp_path / "runs" / NAMES[0])
    line = error_line(run("train.py", "--stage=aug", *flags, cwd=tmp_path))
    assert "was trained on other data (scan of patient002: changed)" in line


def test_a_model_is_what_each_of_its_cases_was_used_for(trained, command, tmp_path):
    """As in a cross-validation: the case that was labelled is validated on, or tested, and the other way round."""
    folder, _ = trained
    shutil.copytree(folder / "runs", tmp_path / "runs")
    before = contents(tmp_path / "runs")
    flags = [*command, f"--config.data.cache_dir={folder / 'cache'}"]
    other = '(patient002: "labelled" -> "validation", patient011: "validation" -> "labelled")'
    exchanged = ["--config.splits.labelled.n1=(('patient011',),)", "--config.splits.validation=('patient002',)"]
    for program, *more in (("train.py", "--stage=aug"), ("train.py", "--stage=seg"), ("evaluate.py",)):
        line = error_line(run(program, *flags, *exchanged, *more, cwd=tmp_path))
        assert f"was made with another split of the cases {other}" in line
    line = error_line(run("train.py", *flags, *exchanged, "--stage=seg", "--aug=aff_gd", cwd=tmp_path))
    assert f"{NAMES[0]}: was made with another split of the cases {other}" in line

    tested = ["--config.splits.labelled.n1=(('patient011',),)", "--config.splits.validation=('patient007',)"]
    line = error_line(run("evaluate.py", *flags, *tested, "--config.splits.test=('patient002',)", cwd=tmp_path))
    assert f"{NAMES[2]}: has used cases of the test split itself (patient002: labelled)" in line
    of_run = f"--run=runs/{NAMES[2]}"
    line = error_line(run("evaluate.py", of_run, "--config.splits.test=('patient011',)", cwd=tmp_path))
    assert f"{NAMES[2]}: has used cases of the test split itself (patient011: validation)" in line
    assert contents(tmp_path / "runs") == before


def test_r1_a_finished_training_scores_what_its_command_names(trained, cohort, tmp_path):
    """A result of the grid is of the scans whose digest it has: of a mended copy, and of other cases."""
    folder, _ = trained
    shutil.copytree(folder / "runs", tmp_path / "runs")
    shutil.copytree(cohort, tmp_path / "renamed")
    mend(tmp_path / "renamed", "patient007")
    flags = ["--stage=seg", "--aug=aff_gd_gi", "--results=results", "--config.data.root=renamed", *TINY]
    flags.append(f"--config.data.cache_dir={folder / 'cache'}")

    def result():
        done = run("train.py", *flags, cwd=tmp_path)
        assert done.returncode == 0 and "finished before" in done.stdout, done.stderr
        (file,) = (tmp_path / "results").glob("*-seed0.json")
        content = json.loads(file.read_text())
        assert content["generators"] == {"deform": "", "intensity": ""}  # those of its own labelled set
        shutil.rmtree(tmp_path / "results")
        return content

    report = tmp_path / "runs" / NAMES[2] / "report.json"
    content = json.loads(report.read_text())
    old = {key: value for key, value in content.items() if key not in ("commits", "sha256")}  # as it was before
    for commits, commit in ((["a1", "b2"], "a1, b2"), ([None, "b2"], None), (None, None)):
        report.write_text(json.dumps({**old, "commits": commits} if commits else old))
        assert result()["commit"] == commit  # of what trained, not of what scores
    before = pd.read_csv(folder / "runs" / NAMES[2] / "evaluation/test/dice.csv").groupby("case").dice.mean()
    mended = result()["dice"]
    assert np.mean(mended["patient027"]) == pytest.approx(before["patient027"], abs=1e-4)
    assert np.mean(mended["patient007"]) != pytest.approx(before["patient007"], abs=1e-4)
    flags.append("--config.splits.test=('patient027',)")
    assert set(result()["dice"]) == {"patient027"}


def test_a_finished_segmenter_is_not_taken_for_one_of_other_generators_or_another_method(trained, command, tmp_path):
    folder, _ = trained
    shutil.copytree(folder / "runs", tmp_path / "runs")
    cache = f"--config.data.cache_dir={folder / 'cache'}"
    named = [*command, cache, "--stage=seg", "--aug=aff_gd_gi"]
    line = error_line(run("train.py", *named, "--config.generators.deform=nowhere", cwd=tmp_path))
    assert "there is no trained generator 'deform'" in line
    line = error_line(run("train.py", *named, f"--config.generators.deform=runs/{NAMES[2]}", cwd=tmp_path))
    assert "has not learned 'deform'; name a run of `train.py --stage=aug --gen=deform`" in line
    line = error_line(run("train.py", *named, f"--config.generators.deform=runs/{NAMES[1]}", cwd=tmp_path))
    assert "has not learned 'deform'" in line

    other = ["--stage=aug", "--gen=deform", "--config.seed=1", "--workdir=other"]
    assert run("train.py", *command, cache, *other, cwd=tmp_path).returncode == 0
    (other,) = (tmp_path / "other").iterdir()
    line = error_line(run("train.py", *named, f"--config.generators.deform={other}", cwd=tmp_path))
    assert "was trained with another generator 'deform'" in line
    copy = f"--config.generators.deform={folder / 'runs' / NAMES[0]}"
    assert "finished before" in run("train.py", *named, copy, cwd=tmp_path).stdout
    shutil.rmtree(tmp_path / "runs" / NAMES[0])  # it has served
    done = run("train.py", *named, "--results=results", cwd=tmp_path)
    assert done.returncode == 0 and "finished before" in done.stdout

    for rotation in ("first=('affine',)", "first=('affine', 'elastic')"):
        (tmp_path / "rows.py").write_text(f"from tfaug.augment.methods import Method\nmine = Method({rotation})\n")
        last = run("train.py", *command, cache, "--stage=seg", "--aug=rows:mine", cwd=tmp_path)
    assert "was trained with another method 'mine'" in error_line(last)


def test_r1_a_segmenter_is_of_the_scans_that_its_generators_learned_from(trained, cohort, tmp_path):
    """Otherwise its result would be taken for one of scans that no training has seen."""
    folder, _ = trained
    shutil.copytree(folder / "runs", tmp_path / "runs")
    shutil.copytree(cohort, tmp_path / "renamed")
    flags = ["--stage=seg", "--results=results", "--config.data.root=renamed", *TINY]
    flags.append(f"--config.data.cache_dir={folder / 'cache'}")
    cases = "--config.splits.unlabelled=('patient016',)"
    line = error_line(run("train.py", *flags, cases, cwd=tmp_path))
    assert 'was made with another split of the cases (patient036: "unlabelled" -> absent)' in line
    for image in (tmp_path / "renamed/patient016").glob("*_frame[0-9][0-9].nii.gz"):
        found = nibabel.load(image)
        nibabel.save(nibabel.Nifti1Image(np.asarray(found.dataobj) + 1, found.affine, found.header), image)
    line = error_line(run("train.py", *flags, cwd=tmp_path))
    assert f"{NAMES[0]}: was trained on other data (scan of patient016: changed)" in line
    for name in NAMES[:2]:
        shutil.rmtree(tmp_path / "runs" / name)  # they have served
    line = error_line(run("train.py", *flags, cases, cwd=tmp_path))
    assert f"{NAMES[2]}: was made with another split of the cases" in line
    assert not (tmp_path / "results").exists()


def test_another_definition_of_distances_is_another_evaluation(trained, cohort, tmp_path):
    folder, _ = trained
    shutil.copytree(folder / "runs" / NAMES[2], tmp_path / "runs" / NAMES[2])
    out = tmp_path / "runs" / NAMES[2] / "evaluation" / "test"
    before = (out / "dice.csv").read_text()
    flags = [f"--config.data.root={cohort}", f"--config.data.cache_dir={folder / 'cache'}", *TINY]
    for distances, again in (("medpy", False), ("medpy", True), ("reloaded", False)):
        result = run("evaluate.py", *flags, f"--distances={distances}", cwd=tmp_path)
        assert result.returncode == 0 and ("evaluated before" in result.stdout) == again
        assert ("hd95_medpy_mm" in pd.read_csv(out / "dice.csv")) == (distances == "medpy")
        assert ("(MedPy 0.4.0)" in result.stdout) == (distances == "medpy")
    assert (out / "dice.csv").read_text() == before
    line = error_line(run("evaluate.py", *flags, "--distances=medpi", cwd=tmp_path))
    assert "--distances: 'medpi' is unknown" in line and "medpy" in line


def test_evaluating_a_named_run(trained, tmp_path):
    """From anywhere, by its folder alone; a generator's run has no segmenter."""
    folder, _ = trained
    shutil.copytree(folder / "runs" / NAMES[2], tmp_path / NAMES[2])
    result = run("evaluate.py", f"--run={NAMES[2]}", "--split=validation", cwd=tmp_path)
    assert result.returncode == 0 and "validation split, 1 case\n" in result.stdout
    assert "no segmenter" in error_line(run("evaluate.py", f"--run={folder / 'runs' / NAMES[0]}", cwd=tmp_path))


def test_r1_a_named_run_scores_other_scans_of_another_folder(trained, cohort, tmp_path):
    """But none that it has learned from."""
    folder, _ = trained
    shutil.copytree(folder / "runs" / NAMES[2], tmp_path / NAMES[2])
    phantom.write_cohort(tmp_path / "others", numbers=(16, 17))  # the default config has both in another split
    flags = [f"--run={NAMES[2]}", "--config.data.root=others"]
    result = run("evaluate.py", *flags, "--config.splits.test=('patient017',)", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert set(pd.read_csv(tmp_path / NAMES[2] / "evaluation/test/dice.csv").case) == {"patient017"}
    for case, used_as in (("patient002", "labelled"), ("patient016", "unlabelled")):
        line = error_line(run("evaluate.py", *flags, f"--config.splits.test=('patient017', '{case}')", cwd=tmp_path))
        assert f"has used cases of the test split itself ({case}: {used_as})" in line
    for wrong, problem in (("()", "is empty"), ("('patient017', 'patient017')", "names patient017 twice")):
        assert problem in error_line(run("evaluate.py", *flags, f"--config.splits.test={wrong}", cwd=tmp_path))
    assert "at least 1" in error_line(run("evaluate.py", *flags, "--config.data.num_workers=0", cwd=tmp_path))
    line = error_line(run("evaluate.py", *flags, "--config.segment.batch_size=3", cwd=tmp_path))
    assert "has no effect with --run" in line
    report = tmp_path / NAMES[2] / "report.json"
    content = {key: value for key, value in json.loads(report.read_text()).items() if key != "sha256"}
    report.write_text(json.dumps({**content, "generators": {}}))  # as of a method that needs no unlabelled scan
    result = run("evaluate.py", *flags, "--config.splits.test=('patient016',)", cwd=tmp_path)
    assert result.returncode == 0 and "1 case" in result.stdout, result.stderr


def test_what_the_trained_generators_make_is_a_data_set(trained, cohort, tmp_path):
    folder, _ = trained
    for name in NAMES[:2]:  # copies whose folder of the cache cannot be made
        shutil.copytree(folder / "runs" / name, tmp_path / name)
        content = json.loads((tmp_path / name / "config.json").read_text())
        content["config"]["data"]["cache_dir"] = str(tmp_path / NAMES[0] / "config.json")
        del content["sha256"]
        (tmp_path / name / "config.json").write_text(json.dumps(content))
    runs = [f"--run={tmp_path / name}" for name in NAMES[:2]]
    result = run("tfaug", "generate", *runs, "-n", 2, "-o", tmp_path / "out", cwd=folder)
    assert result.returncode == 0 and "2 cases" in result.stdout, result.stderr
    source = nibabel.load(es_label(cohort, "patient002"))
    label = nibabel.load(tmp_path / "out/labelsTr/patient002_g0001.nii.gz")
    assert label.shape == source.shape and np.allclose(label.affine, source.affine)
    assert set(np.unique(label.dataobj)) == {0, 1, 2, 3}
    for wrong, problem in ((NAMES[2], "no trained generator"), (NAMES[0], "is of kind 'deform'")):
        line = error_line(
            run("tfaug", "generate", *runs, f"--run={folder / 'runs' / wrong}", "-n", 2, "-o", "x", cwd=folder)
        )
        assert problem in line


def test_reports_tell_what_generators_do(trained, tmp_path):
    """Of a segmenter's run, and of a generator's; the config that they hold is that of the runs, for both stages."""
    folder, _ = trained
    segmenter, generator = (folder / "runs" / name for name in (NAMES[2], NAMES[0]))
    verdict = json.loads((generator / "report.json").read_text())["verdict"]
    for path, charts in (
        (segmenter, ("Displacement of pixels", "Change of intensity")),
        (generator, ("Displacement of",)),
    ):
        result = run("tfaug", "report", path, "-o", tmp_path / f"{path.name}.html", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        page = (tmp_path / f"{path.name}.html").read_text()
        for words in (
            *charts,
            f"has {verdict}" if verdict == "collapsed" else verdict,
            "folds over itself",
            "random elastic",
        ):
            assert words in page, words
        assert "No histogram" not in page and "whose runs are gone" not in page
        config = base64.b64decode(re.search(r'base64,([\w+/=]+)" download="phantom.py"', page)[1])
        (tmp_path / "phantom.py").write_bytes(config)
        stage = ("seg", "--aug=aff_gd_gi") if path == segmenter else ("aug", "--gen=deform")
        flags = (f"--config={tmp_path / 'phantom.py'}", f"--workdir={folder / 'runs'}", f"--stage={stage[0]}", stage[1])
        assert "finished before" in run("train.py", *flags, cwd=tmp_path).stdout


def test_a_report_describes_no_generator_but_those_that_the_segmenter_learned_with(trained, tmp_path):
    folder, _ = trained
    shutil.copytree(folder / "runs", tmp_path / "runs")
    segmenter = tmp_path / "runs" / NAMES[2]
    shutil.rmtree(segmenter / "evaluation")  # of the report as it was
    content = json.loads((segmenter / "report.json").read_text())
    del content["sha256"]
    content["generators"]["deform"] = "of another one"
    (segmenter / "report.json").write_text(json.dumps(content))
    result = run("tfaug", "report", segmenter, "-o", "r.html", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "r.html").read_text()
    assert "Change of intensity" in page and "Displacement of pixels" not in page
    assert page.count("whose runs are gone or have learned other ones") == 3  # with the others, the config and in it
    shutil.rmtree(tmp_path / "runs" / NAMES[1])
    assert run("tfaug", "report", segmenter, "-o", "gone.html", cwd=tmp_path).returncode == 0
    assert "Change of intensity" not in (tmp_path / "gone.html").read_text()


def test_help_is_printed(tmp_path):
    result = run("train.py", "--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(train.__doc__)


@pytest.mark.parametrize(
    "flags, subject, hint",
    [
        (["--stge=aug"], "--stge", "'stage'"),
        (["--stage=augg"], "--stage", "'aug'"),
        (["--aug=aff_gdgi"], "--aug", "'aff_gd_gi'"),
        (["--gen=deformation"], "--gen", "'deform'"),
        (["--config.augment.lambda_advv=1"], "lambda_advv", "'lambda_adv'"),
        (["--config.augmnt.lambda_adv=1"], "augmnt", "'augment'"),
        (["--config.augment.batch_size=0"], "--config.augment.batch_size", "at least 2"),
        (["--config.augment.pack=3"], "--config.augment.pack", "divisor"),
        (["--config.augment.batch_size=many"], "--config.augment.batch_size=many", "many"),
        (["--config.augment.learning_rate=nan"], "--config.augment.learning_rate", "above 0"),
        (["--config.num_labelled=2"], "--config.num_labelled", "1, 3, 40"),
        (["--config.labelled_set=6"], "--config.labelled_set", "1 to 5"),
        (["--stage=seg", "--aug=adv_ssl", "--config.splits.unlabelled=()"], "splits.unlabelled", "at least one"),
        (["--config.splits.validation=('patient007',)"], "--config.splits", "patient007"),
        (
            ["--config.splits.validation=('patient007',)", "--config.splits.validation=()"],
            "--config.splits.validation",
            "is empty",
        ),
        (["--config.splits.labelled.n2=(('a', 'b', 'c'),)"], "--config.splits.labelled.n2", "splits.labelled.n3"),
        (["--config.splits.labelled.n2=(('a',),)"], "--config.splits.labelled.n2", "splits.labelled.n1"),
        (["--config.splits.labelled.all=(('a',),)"], "--config.splits.labelled.all", "n2"),
        (["--config.splits.labelled.n2=(('a',"], "--config.splits.labelled.n2", "(('CASE1',),)"),
        (["--config.splits.labelled.n2=(('a', 'a'),)"], "--config.splits.labelled.n2", "names a twice"),
        (["--config.splits.test=('a', 'b', 'a')"], "--config.splits.test", "names a twice"),
        (["--config=nowhere.py"], "nowhere.py", "configs/"),
        (["--config=broken.py"], "broken.py:2", "does not parse"),
        (["--config.data.root=nowhere"], "nowhere", ""),
        (["stray"], "stray", "--"),
    ],
)
def test_bad_flags_and_configs_get_one_line(flags, subject, hint, tmp_path):
    (tmp_path / "broken.py").write_text("def get_config():\n    return (\n")
    line = error_line(run("train.py", *flags, cwd=tmp_path))
    assert subject in line and hint in line
    assert [path.name for path in tmp_path.iterdir()] == ["broken.py"]


@pytest.mark.parametrize(
    "program, flags, ignored",
    [
        ("train.py", ["--gen=intensity"], "--gen"),
        ("train.py", ["--results=r"], "--results"),
        ("train.py", ["--num_labelled=1"], "--num_labelled"),
        ("train.py", ["--check", "--gen=intensity"], "--gen"),
        ("train.py", ["--stage=aug", "--aug=aff_gd"], "--aug"),
        ("train.py", ["--stage=seg", "--num_labelled", "1"], "--num_labelled"),
        ("train.py", ["--stage=seg", "--gen=deform"], "--gen"),
        ("train.py", ["--stage=seg", "--aug=aff", "--config.generators.deform=r"], "--config.generators.deform"),
        ("train.py", ["--stage=aug", "--config.generators.deform=r"], "--config.generators.deform"),
        ("train.py", ["--stage=data", "--aug=aff"], "--aug"),
        ("train.py", ["--stage=data", "--sets=1", "--config.labelled_set=2"], "--config.labelled_set"),
        ("train.py", ["--stage=table1", "--aug=aff"], "--aug"),
        ("train.py", ["--stage=table1", "--config.num_labelled=3"], "--config.num_labelled"),
        ("train.py", ["--stage=table1", "--scheduler=tcp://a:1", "--workers=2"], "--workers"),
        (
            "train.py",
            ["--stage=table1", "--methods=aff", "--config.generators.deform=r"],
            "--config.generators.deform",
        ),
        ("train.py", ["--config.data.root=r", "--config.data.cohort_seed=1"], "--config.data.cohort_seed"),
        ("train.py", ["--config=own", "--config.splits.test=('a',)"], "--config.splits.test"),
        ("train.py", ["--config=own", "--config.splits.labelled.n2=(('a','b'),)"], "--config.splits.labelled.n2"),
        ("train.py", ["--config.splits.file=s.csv", "--config.splits.validation=('a',)"], "--config.splits.validation"),
        ("evaluate.py", ["--run=r", "--config.seed=1"], "--config.seed"),
        ("evaluate.py", ["--run=r", "--noconfig.augment.task_gradient"], "--config.augment.task_gradient"),
        ("evaluate.py", ["--run=r", "--config=acdc"], "--config"),
        ("evaluate.py", ["--run=r", "--config.splits.labelled.n2=(('a','b'),)"], "--config.splits.labelled.n2"),
        ("evaluate.py", ["--run=r", "--config.splits.validation=('a',)"], "--config.splits.validation"),
        ("evaluate.py", ["--run=r", "--split=validation", "--config.splits.test=('a',)"], "--config.splits.test"),
        ("evaluate.py", ["--run=r", "--config.splits.unlabelled=()"], "--config.splits.unlabelled"),
        ("evaluate.py", ["--run=r", "--aug=aff"], "--aug"),
        ("evaluate.py", ["--run=r", "--workdir=r"], "--workdir"),
        ("evaluate.py", ["--results=r"], "--results"),
        ("evaluate.py", ["--table1", "--split=test"], "--split"),
        ("evaluate.py", ["--figures", "--run=r"], "--run"),
        ("tfaug check", ["--aug=aff"], "--aug"),
        ("tfaug table1", ["--aug=aff"], "--aug"),
    ],
    ids=str,
)
def test_c10_a_flag_that_would_have_no_effect_gets_one_line(program, flags, ignored, tmp_path):
    result = run(*program.split(), *flags, cwd=tmp_path)
    assert error_line(result).startswith(f"error: {ignored}: has no effect with ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["data.cache_dir", "generators", "segment.batch_size"])
def test_a_config_file_that_lacks_a_key_gets_one_line(key, tmp_path):
    section, _, last = key.rpartition(".")
    (tmp_path / "mine.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tfaug.configs import phantom\n"
        "def get_config():\n"
        "    config = phantom.get_config()\n"
        f"    del config{f'.{section}' * bool(section)}[{last!r}]\n"
        "    return config\n"
    )
    for program in ("train.py", "evaluate.py"):
        line = error_line(run(program, "--config=mine.py", cwd=tmp_path))
        assert f"--config.{key}" in line and "is missing" in line


@pytest.mark.slow
def test_processes_of_the_default_size_agree_to_the_last_bit(command, tmp_path):
    # A graph may be rewritten, or its sums ordered, in another way in one process of four; a tiny network hides it.
    size = ["data.image_size=64", "data.resolution=2.75", "model.filters=16"]
    flags = [*command, *REAL, *(f"--config.{value}" for value in size), "--stage=aug", "--gen=deform"]
    outcomes = []
    for index in range(8):
        assert run("train.py", *flags, f"--workdir={index}", cwd=tmp_path).returncode == 0
        outcomes.append(soak.outcome(tmp_path / str(index) / "phantom-n1-set1-aug-deform-seed0"))
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_bad_data_gets_one_line(cohort, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(cohort, root)
    es_label(root, "patient002").unlink()
    line = error_line(run("train.py", f"--config.data.root={root}", *TINY, cwd=tmp_path))
    assert "patient002" in line and "_gt" in line

    shutil.copytree(cohort / "patient002", root / "patient002", dirs_exist_ok=True)
    label = nibabel.load(es_label(root, "patient002"))
    cut = nibabel.Nifti1Image(np.asarray(label.dataobj)[:-1], None, label.header)
    nibabel.save(cut, es_label(root, "patient002"))
    line = error_line(run("train.py", f"--config.data.root={root}", *TINY, cwd=tmp_path))
    assert "patient002" in line and "shape" in line

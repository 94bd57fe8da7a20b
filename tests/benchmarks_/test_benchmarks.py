"""That the benchmarks run, at toy sizes, and that their tables say what was measured; never how fast anything is."""

import itertools
import math
import os
import pathlib
import re
import subprocess
import types

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from data_.patients import write_patient
from fast_networks import FAST
from test_extending import write_msd

import tfaug
from benchmarks import (
    grid,
    inference,
    operations,
    others,
    pipeline,
    precision,
    preprocessing,
    run_time,
    scaling,
    soak,
    steps,
    timing,
    workloads,
)
from tfaug.compat import keras
from tfaug.configs import phantom
from tfaug.table1 import results

SHAPE = {"size": 32, "batch": 2, "precision": "float32"}


def rows(table):
    """The cells of a Markdown table, header first."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert set(lines[1]) == {"---"} and len({len(line) for line in lines}) == 1
    return [lines[0], *lines[2:]]


def column(table, name):
    header, *body = rows(table)
    return [row[header.index(name)] for row in body]


class FakeWorker:
    """Measures what the test says, by name of the job and arguments."""

    measure = None

    def __init__(self, module, function, **arguments):
        self.facts = {"gflop": 10.0, "data_mib": 1.0, "slices": 30, "volumes": 3}
        self._measurement = type(self).measure(function, arguments)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self):
        return self._measurement

    def peak_memory(self):
        return 512.0


@pytest.fixture
def fake(monkeypatch):
    """A function that sets what workers measure."""

    def measure(function):
        monkeypatch.setattr(FakeWorker, "measure", staticmethod(function))
        for module in (steps, pipeline, scaling, inference):
            monkeypatch.setattr(module, "Worker", FakeWorker)

    monkeypatch.setattr(timing, "SETTLE_SECONDS", 0.0)
    return measure


def test_measurements_are_taken_in_turn_and_their_medians_returned(monkeypatch):
    monkeypatch.setattr(timing, "SETTLE_SECONDS", 0.0)
    order, slow = [], iter([5.0, 1.0, 3.0])

    def a():
        order.append("a")
        return {"seconds": next(slow)}

    def b():
        order.append("b")
        return {"seconds": 2.0, "more": 7.0}

    medians = timing.side_by_side({"a": a, "b": b}, repeats=3)
    assert order == ["a", "b"] * 3
    assert medians == {"a": {"seconds": 3.0}, "b": {"seconds": 2.0, "more": 7.0}}


def test_a_worker_runs_its_job_in_another_process():
    with timing.Worker("jobs", "where", warm_up=1, answer=42) as worker:
        assert worker.facts == {"answer": 42}
        measured = worker()
        assert measured["pid"] != os.getpid() and measured["runs"] == 2
        assert 0 <= measured["seconds"] < 60
        assert 1 < worker.peak_memory() < timing.peak_memory() + 2000


def test_the_matrix_product_is_counted():
    job = timing.matrix_product("bfloat16", 8)
    job.run()
    assert job.facts == {"gflop": 2 * 8**3 / 1e9}


def test_a_worker_that_fails_is_noticed(capfd):
    with pytest.raises(RuntimeError, match="benchmarks.timing.no_such_job"):
        timing.Worker("benchmarks.timing", "no_such_job")
    assert "AttributeError" in capfd.readouterr().err


def test_tables_show_three_digits():
    assert timing.table(["a", "b"], [["x", 0.0123456], [3, 1234.5], [None, 10.0]]).splitlines()[2:] == [
        "| x | 0.0123 |",
        "| 3 | 1234 |",
        "|  | 10.0 |",
    ]


def small_segmenter(size, num_classes, seed=0):
    """Instead of the U-Net, whose graph takes seconds to trace."""
    image = keras.Input((size, size, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 3, padding="same", use_bias=False)(image))
    return keras.Model(image, keras.layers.Conv2D(num_classes, 1)(x))


def small_generator(kind, size, seed=0):
    image, z = keras.Input((size, size, 1)), keras.Input((100,))
    shift = keras.layers.Reshape((1, 1, 2))(keras.layers.Dense(2)(z))
    return keras.Model([image, z], keras.layers.Conv2D(2 if kind == "deform" else 1, 1)(image) + shift)


def small_discriminator(size, seed=0):
    image = keras.Input((size, size, 1))
    return keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(image)))


@pytest.mark.parametrize(
    "build, arguments, numbers",
    [
        (workloads.learn_iterations, {"task_gradient": False, "volumes": 2}, ()),
        (workloads.plain_keras, {}, ()),
        (workloads.segment_waiting, {"method": "aff_gd", "num_steps": 2}, ("iteration", "waited", "step", "batch")),
        (workloads.predictions, {"patients": 1}, ("network", "restore")),
        (workloads.whole_predictions, {"patients": 1, "n4_shrink": 0}, ("network",)),
    ],
)
def test_workloads_run(build, arguments, numbers, monkeypatch):
    for name, small in (("generator", small_generator), ("discriminator", small_discriminator)):
        monkeypatch.setattr(workloads, name, small)
    monkeypatch.setattr(workloads, "unet", small_segmenter)
    job = build(**SHAPE, **arguments)
    measured = timing.timed(job.run)
    assert set(measured) == {"seconds", *numbers}
    assert all(math.isfinite(value) and value > 0 for value in (*measured.values(), *job.facts.values()))
    if numbers:
        assert sum(measured[number] for number in numbers) <= 3 * measured["seconds"]


def test_the_clone_with_biases_differs_in_them_alone():
    model = workloads.unet(32, 4, filters=2)
    clone = keras.models.clone_model(model, clone_function=workloads._with_bias)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert clone.count_params() - model.count_params() == sum(norm.gamma.shape[0] for norm in norms)
    assert [layer.name for layer in clone.layers] == [layer.name for layer in model.layers]


def test_flop_are_those_of_a_hand_count():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same")(image)
    model = keras.Model(image, keras.layers.Dense(7)(keras.layers.Flatten()(x)))
    assert workloads.gflop_per_slice(model) == pytest.approx(2 * (4 * 4 * 3 * 3 * 3 * 5 + 80 * 7) / 1e9)


def test_an_update_of_s_at_the_papers_size_is_345_gflop():
    assert 20 * 3 * workloads.gflop_per_slice(workloads.unet(224, 4)) == pytest.approx(345, abs=0.5)


def test_steps_compares_with_keras_and_the_matrix_product(fake, monkeypatch):
    monkeypatch.setattr(steps, "_has_torch", lambda: True)
    seconds = {"plain_keras": 2.0, "matrix_product": 0.02}
    fake(lambda function, arguments: {"seconds": seconds.get(function, 1.0)})
    table = steps.measure(32, 2, repeats=1, precisions=["float32", "mixed_bfloat16"], matrix=8)
    assert len(rows(table)) == 1 + 2 * (1 + len(steps.OURS) + 2 + 1)
    assert column(table, "ratio") == ["1.00"] * 2 + ["0.500"] * 2 * (len(steps.OURS) + 2) + [""] * 2
    assert set(column(table, "of the matrix product's rate")) == {"0.0100", "0.0200", "1.00"}
    assert set(column(table, "peak MiB")) == {"512"}


def test_steps_can_be_measured_in_parts(fake, monkeypatch):
    monkeypatch.setattr(steps, "_has_torch", lambda: True)
    fake(lambda *_: {"seconds": 1.0})
    table = steps.measure(32, 2, repeats=1, precisions=["float32"], matrix=8, only="update")
    assert column(table, "work") == [steps.REFERENCE[0], "S update alone", "matrix product"]


def test_steps_has_its_reference_whatever_the_precision(fake, monkeypatch):
    monkeypatch.setattr(steps, "_has_torch", lambda: False)
    fake(lambda function, arguments: {"seconds": 4.0 if function == "plain_keras" else 1.0})
    table = steps.measure(32, 2, repeats=1, precisions=["mixed_bfloat16"], matrix=8)
    assert column(table, "precision").count("float32") == 2  # Keras and the matrix product
    assert column(table, "ratio")[2] == "0.250"


def test_pipeline_gives_the_share_of_waiting(fake):
    fake(lambda *_: {"seconds": 9.0, "iteration": 0.5, "waited": 0.01, "step": 0.4, "batch": 0.1})
    table = pipeline.measure([(32, 2), (64, 2)], num_steps=1, repeats=1, precision="float32")
    assert column(table, "size/batch") == ["32/2"] * 3 + ["64/2"] * 3
    assert set(column(table, "share")) == {"0.0200"}
    assert set(column(table, "ratio to step alone")) == {"1.25"}


def test_scaling_varies_one_thing_at_a_time(fake):
    fake(lambda function, arguments: {"seconds": arguments["batch"] * arguments["size"] ** 2 / 1e3})
    grid = scaling.Shape([32, 64, 96], [2, 4, 8], [1, 2, 3])
    table = scaling.measure(grid, num_steps=1, repeats=1, precision="float32")
    shapes = [tuple(row[1:4]) for row in rows(table)[1:]]
    varied = [("64", "4"), ("32", "4"), ("96", "4"), ("64", "2"), ("64", "8")]
    assert shapes[:5] == [(*shape, "") for shape in varied]  # S sees no unlabelled volumes
    assert shapes[5:] == [*((*shape, "2") for shape in varied), ("64", "4", "1"), ("64", "4", "3")]
    assert set(column(table, "per pixel")) == {"1.00"}
    assert column(table, "ratio")[:5] == ["1.00", "0.250", "2.25", "0.500", "2.00"]


def test_inference_compares_with_slice_by_slice(fake):
    fake(
        lambda function, arguments: {"seconds": 6.0 if arguments["batch"] == 1 else 1.5, "network": 1.0, "restore": 0.5}
    )
    table = inference.measure(32, 4, patients=3, repeats=1, precisions=["float32"])
    assert column(table, "work") == ["slice by slice", "batches of 4"]
    assert column(table, "volumes/s") == ["0.500", "2.00"]
    assert column(table, "ratio") == ["1.00", "4.00"]
    assert column(table, "restore's share") == ["0.333"] * 2


def test_whole_predictions_are_compared_with_the_forward_pass(fake):
    fake(lambda function, arguments: {"seconds": 4.0, "network": 3.0 if arguments["precision"] == "float32" else 1.0})
    table = inference.measure_predict(32, 4, 3, repeats=1, precisions=["float32", "mixed_bfloat16"], n4_shrink=0)
    assert column(table, "work") == ["predict", "forward pass"] * 2
    assert column(table, "slices/s") == ["7.50", "10.0", "7.50", "30.0"]
    assert column(table, "ratio") == ["0.750", "1.00", "0.250", "1.00"]


def test_preprocessing_measures_and_extrapolates(tmp_path, capsys):
    for seed, case in enumerate(("patient001", "patient002")):
        write_patient(tmp_path, case, seed)
    flags = ["--cases=2", "--extrapolate=1", "--shrinks=2,4", "--size=32", "--resolution=2", "--workers=2"]
    assert preprocessing.main([f"--root={tmp_path}", *flags]) == 0
    shrinks, loading = re.findall(r"(?:^\|.*\n)+", capsys.readouterr().out, re.MULTILINE)
    shrinks, loading = shrinks.strip(), loading.strip()
    assert column(shrinks, "shrink") == ["2", "4"]
    exact, coarse = map(float, column(shrinks, "mean abs. difference"))
    assert exact == 0 < coarse < 1
    assert "extrapolated from 1" in column(loading, "work")[0]
    assert all(float(cell) > 0 for cell in column(loading, "times faster"))


def test_precisions_are_compared_on_the_runs_that_both_have(tmp_path):
    config = phantom.get_config()
    config.splits.test = ("a", "b")
    dice = {"float32": [0.50, 0.60, 0.70], "mixed_bfloat16": [0.52, 0.58]}  # of sets 1, 2, 3
    for name, means in dice.items():
        config.precision = name
        for number, mean in enumerate(means, start=1):
            of_cases = {"a": (mean - 0.1, mean + 0.1), "b": (mean, math.nan)}
            seconds = 30.0 if name == "float32" else 20.0
            result = results.Result("aff", 1, number, 0, 350, 0.5, of_cases, seconds, None, 1, "2.15.1")
            results.save(tmp_path / name, result, config, ("left", "right"))
    *pairs, _, means, difference, time = precision.compare({name: tmp_path / name for name in dice}).splitlines()
    assert [line.split()[-2:] for line in pairs[-2:]] == [["0.5000", "0.5200"], ["0.6000", "0.5800"]]
    assert means == "mean Dice 0.5500 in float32, 0.5500 in mixed_bfloat16"
    # The differences are +-0.02: a standard error of 0.02, and 12.706 of them with one degree of freedom.
    assert difference == "difference +0.0000 +- 0.2541 (95 % t-interval, 2 pairs)"
    assert time == "time of training 0.67 of that in float32"


def test_precision_trains_the_same_in_both_and_ends_with_a_training_that_fails(tmp_path, monkeypatch):
    commands = []

    def run(command):
        commands.append(command)
        return subprocess.CompletedProcess(command, len(commands) - 1)

    monkeypatch.setattr(precision.subprocess, "run", run)
    flags = [f"--workdir={tmp_path}", "--sets=2", "--config.data.root=DIR"]
    assert precision.main(flags) == 1
    first, second = (
        [part.replace(name, "P") for part in command] for name, command in zip(precision.PRECISIONS, commands)
    )
    assert first == second and {"--stage=table1", "--sets=2", "--config.precision=P", "--config.data.root=DIR"} <= {
        *first
    }


def test_others_get_the_same_volumes_with_and_without_the_generated_set(tmp_path, capsys):
    structures = {"anterior": 85, "posterior": 300}
    write_msd(tmp_path / "data", structures)
    for number in (1, 2):
        write_msd(tmp_path / f"generated/set{number}", structures, num_cases=3, unlabelled=0)
    config = tfaug.load_config("own")
    config.data.root, config.data.n4_shrink, config.data.cache_dir = str(tmp_path / "data"), 0, str(tmp_path / "cache")
    config.data.image_size, config.data.resolution = 32, 2.0
    config.splits.random = {"labelled": 1, "validation": 1, "test": 2, "sets": 2}
    given = []

    def train(original, generated, num_classes, seed):
        given.append((original[0], generated and generated[0].shape))
        answer = np.eye(num_classes, dtype=np.float32)[0 if generated is None else 1]
        return lambda images: np.broadcast_to(answer, (*images.shape[:3], num_classes))

    compared = others.compare(config, tmp_path / "generated", [1, 2], range(2), train)
    assert [shape for _, shape in given] == [None, (12, 32, 32, 1)] * 4  # 3 volumes of 4 slices
    assert np.array_equal(given[0][0], given[1][0]) and not np.array_equal(given[0][0], given[4][0])
    assert compared.index.tolist() == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert (compared["without"] == 0).all() and (compared["with"] > 0).all()
    assert "set 2, seed 1, with: 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    "sets, gain, verdict",
    [
        ((1, 2, 3), [0.1, 0.12, 0.11], "3 labelled sets): it helps"),
        ((1, 2, 3), [-0.1, -0.12, -0.11], "3 labelled sets): it hurts"),
        ((1, 2, 3), [-0.1, 0.1, 0.0], "3 labelled sets): no difference is shown"),
        ((1, 1, 1), [0.1, 0.12, 0.11], "3 seeds of one labelled set): it helps"),
        # As so many independent pairs they would show it; but the seeds of a set repeat each other.
        ((1, 1, 1, 1, 2, 2, 2, 2), [0.2, 0.2, 0.2, 0.2, 0.01, 0.01, 0.01, 0.01], "2 labelled sets): no difference"),
    ],
)
def test_others_says_what_the_labelled_sets_show(sets, gain, verdict):
    index = pd.MultiIndex.from_arrays([sets, range(len(sets))], names=["set", "seed"])
    compared = pd.DataFrame({"without": 0.5, "with": 0.5 + np.array(gain)}, index=index)
    text = others.report(compared)
    assert verdict in text and f"difference {np.mean(gain):+.4f}" in text


class Started:
    """Trainings that a grid would run: seconds go by on a clock of the test, by steps and threads; events tell them."""

    clock = 0.0

    def __init__(self, commands):
        self.commands = commands

    def __call__(self, command, env, **_):
        self.commands.append((command, env))
        *_, count = [0, *(int(flag.split("=")[1]) for flag in command if "num_steps" in flag)]
        slow = 2 if env.get("TF_ENABLE_ONEDNN_OPTS") == "0" else 1
        step = slow / int(env["TF_NUM_INTRAOP_THREADS"])
        self.seconds = max(getattr(self, "seconds", 0), 10 + step * count)
        if count:
            values = dict(flag.split("=", 1) for flag in command if "=" in flag)
            run = pathlib.Path(values["--workdir"]) / values["--config.seed"]
            run.mkdir(parents=True, exist_ok=True)
            (run / "events.out.tfevents.1").write_text(f"{step} {count}")
        return self

    def wait(self):
        type(self).clock += getattr(self, "seconds", 0)
        self.seconds = 0
        return 0


def events(file):
    """What `Started` tells of the reports of losses, and a picture's event between."""
    step, count = map(float, file.read_text().split())
    for done, tag in [(count // 4, "loss/segmentation"), (count // 2, "batch"), (3 * count // 4, "loss/segmentation")]:
        summary = types.SimpleNamespace(value=[types.SimpleNamespace(tag=tag)])
        yield types.SimpleNamespace(step=int(done), wall_time=7.0 + step * done, summary=summary)


def test_a_grids_trainings_an_hour_follow_from_what_a_step_takes_and_what_a_training_needs_besides(monkeypatch, capsys):
    started = Started([])
    others = {name: getattr(subprocess, name) for name in ("run", "PIPE", "DEVNULL")}
    monkeypatch.setattr(grid, "subprocess", types.SimpleNamespace(Popen=started, **others))
    monkeypatch.setattr(grid.event_files, "events", events)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: Started.clock)
    monkeypatch.setattr(timing, "SETTLE_SECONDS", 0.0)
    flags = ["--config=phantom", "--config.segment.num_steps=100", "--config.augment.num_steps=200"]
    assert grid.main(["--repeats=1", "--steps=20", "--before=elsewhere", *flags]) == 0
    table = capsys.readouterr().out.strip()
    assert column(table, "code") == ["now", "one at a time", "without oneDNN", "before"] * 3
    assert column(table, "ms/step") == ["1000", "500", "2000", "1000"] * 2 + [""] * 4
    assert column(table, "s besides") == ["10.0"] * 8 + [""] * 4
    rates = [7200 / 110, 3600 / 60, 7200 / 210, 7200 / 110, 7200 / 210, 3600 / 110, 7200 / 410, 7200 / 210]
    sets = [1 / (17 / segmenters + 4 / generators) for segmenters, generators in zip(rates[:4], rates[4:], strict=True)]
    assert list(map(float, column(table, "an hour"))) == pytest.approx(rates + sets, rel=1e-2)
    ratios = [[float(ratio) for ratio in column(table, "ratio")][k : k + 4] for k in (0, 4, 8)]
    assert ratios == [
        [1, 0.917, 0.524, 1],
        [1, 0.955, 0.512, 1],
        [1, pytest.approx(sets[1] / sets[0], rel=1e-2), pytest.approx(sets[2] / sets[0], rel=1e-2), 1],
    ]
    assert grid.main(["--repeats=1", "--steps=20", "--before=elsewhere", "--only=segmenters now,before", *flags]) == 0
    some = capsys.readouterr().out.strip()
    assert rows(some)[1:] == [rows(table)[k] for k in (1, 4, 8, 12)]
    trained = [command for command, _ in started.commands if "--check" not in command]
    assert {command[1] for command in trained} == {str(grid.ROOT / "train.py"), os.path.abspath("elsewhere/train.py")}
    assert {"--config.seed=0", "--config.seed=1"} <= {flag for command in trained for flag in command}
    # Read in order, a key cannot be set before the config is known.
    assert all(
        command.index("--config=phantom") < min(n for n, flag in enumerate(command) if flag.startswith("--config."))
        for command, _ in started.commands
    )


def test_the_parts_of_a_run_exclude_each_other(monkeypatch):
    clock = itertools.count()  # every look takes a second
    monkeypatch.setattr(run_time.time, "perf_counter", lambda: float(next(clock)))
    watch = run_time.Stopwatch()
    with watch.part("validation"):
        with watch.part("checkpoints"):
            pass
        with watch.part("checkpoints"):
            pass
    assert watch.seconds["checkpoints"] == 2
    assert watch.seconds["validation"] == 5 - 2


def test_run_time_accounts_for_a_whole_run(tmp_path):
    for seed, case in enumerate(("patient002", "patient011")):
        write_patient(tmp_path / "cohort", case, seed)
    flags = [
        *soak.TINY,
        *FAST,
        f"--config.data.root={tmp_path / 'cohort'}",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
        f"--workdir={tmp_path}",
        "--aug=none",
        "--config.segment.num_steps=6",
    ]
    seconds = run_time.run_stage("seg", tmp_path, flags)
    assert all(seconds[part] > 0 for part in run_time.PARTS)
    assert sum(seconds[part] for part in run_time.PARTS) < seconds["total"]
    table = run_time.report({"seg": seconds})
    assert len(rows(table)) == 1 + len(run_time.PARTS) + 2
    percentages = list(map(float, column(table, "%")))
    assert percentages[-1] == 100 and sum(percentages[:-1]) == pytest.approx(100, abs=1)


def test_operations_are_counted_by_kind_and_shares_add_up():
    product = tf.function(lambda a: tf.reduce_sum(tf.exp(a @ a)))
    spent = operations.milliseconds(lambda: product(tf.ones([64, 64])).numpy(), steps=2)
    assert spent["Exp"] > 0 and any("MatMul" in kind for kind in spent)
    assert not [kind for kind in spent if "inference" in kind or kind in ("Run", "Process")]
    table = operations.report({"Exp": 3.2, **{f"Small{index}": 0.04 for index in range(20)}})
    assert column(table, "share") == ["80.0%", *["1.0%"] * 20, "100.0%"]
    assert column(table, "operation")[-2:] == ["other", "all operations"]

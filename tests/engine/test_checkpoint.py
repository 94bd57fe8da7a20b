import json
import os
import random
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
from toy import FINGERPRINT, Toy, ToyStep, fingerprint_of, outcome

from tfaug.compat import keras
from tfaug.engine import checkpoint
from tfaug.engine.checkpoint import find_damage, load_best
from tfaug.engine.errors import MachineError, UserError

NUM_STEPS = 14


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder and the outcome of a run that nothing happens to."""
    toy = Toy(tmp_path_factory.mktemp("undisturbed"))
    toy.fit(NUM_STEPS)
    return toy.folder, outcome(toy)


@pytest.fixture
def run(undisturbed, tmp_path):
    """A copy of the undisturbed run's folder, to be damaged."""
    return shutil.copytree(undisturbed[0], tmp_path / "run")


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def steps(folder):
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("step-*"))


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def kill(toy, place, moment):
    """Runs `toy` until it dies at `place`, when `moment` updates are done."""
    num_done, dead = 0, False
    update, score, batches = toy.step.update, toy.score, toy.batches

    def die_if(here):
        nonlocal dead
        if here == place and num_done == moment:
            dead = True
            raise Killed

    def batches_then_die(start):
        nonlocal num_done
        num_done = start
        for item in batches(start):
            die_if("batch")
            yield item

    def update_then_die(item):
        nonlocal num_done
        scalars = update(item)
        num_done += 1
        die_if("update")
        return scalars

    def score_then_die():
        die_if("score")
        return score()

    def rename_then_die(source, target, rename=os.rename):
        die_if("save")
        rename(source, target)
        die_if("rotation")

    def rmtree_unless_dead(*args, rmtree=shutil.rmtree, **kwargs):
        if not dead:
            rmtree(*args, **kwargs)

    toy.batches, toy.step.update, toy.keep_best._score = batches_then_die, update_then_die, score_then_die
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint.os, "rename", rename_then_die)
        patch.setattr(checkpoint.shutil, "rmtree", rmtree_unless_dead)
        toy.fit(NUM_STEPS)
    toy.log.sizes()  # what was logged may reach the disk before a process dies


@pytest.mark.parametrize(
    "kills",
    [
        [("save", 0)],
        [("update", 3)],
        [("save", 4)],
        [("score", 9)],
        [("batch", 9)],
        [("rotation", 12)],
        [("save", 14)],
        [("update", 7), ("save", 8), ("batch", 11), ("score", 14)],
        [("update", 2), ("save", 3), ("batch", 3)],
    ],
    ids=str,
)
def test_a_resumed_run_equals_an_undisturbed_one(undisturbed, tmp_path, kills):
    for place, moment in kills:
        kill(Toy(tmp_path), place, moment)
    toy = Toy(tmp_path)
    toy.fit(NUM_STEPS)
    assert outcome(toy) == undisturbed[1]
    assert not list(tmp_path.rglob("tmp-*"))


SPOILS = {
    "slot": lambda toy: toy.step.optimizer.variables[-1].assign([0.0]),
    "iterations": lambda toy: toy.step.optimizer.iterations.assign(0),
    "statistics": lambda toy: toy.step.model.layers[1].moving_mean.assign(tf.zeros(4)),
    "step variable": lambda toy: toy.step.average_loss.assign(0.0),
    "best": lambda toy: setattr(toy.checkpoints, "best", None),
    "batches": lambda toy: setattr(toy, "shift", 1),
    "nothing": lambda toy: None,
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_negative_control_what_is_not_carried_over_shows(undisturbed, tmp_path, spoil):
    kill(Toy(tmp_path), "batch", 12)
    toy = Toy(tmp_path)
    toy.shift = 0
    restore, batches = toy.checkpoints.restore, toy.batches

    def restore_and_spoil():
        num_done = restore()
        SPOILS[spoil](toy)
        return num_done

    toy.checkpoints.restore = restore_and_spoil
    toy.batches = lambda start: batches(start + toy.shift)
    toy.fit(NUM_STEPS)
    assert (outcome(toy) == undisturbed[1]) == (spoil == "nothing")


def test_two_checkpoints_are_kept_with_the_best_model_of_each(run):
    assert steps(run / "checkpoints") == [12, 14]
    assert steps(run / "best") == [9]


def test_going_back_to_the_older_checkpoint_goes_back_to_its_best_model(undisturbed, tmp_path):
    """Checkpoint 8 knows the best of step 6, although 9 was better."""
    kill(Toy(tmp_path), "batch", 12)
    assert steps(tmp_path / "best") == [6, 9]
    (tmp_path / "checkpoints/step-00000012/state.json").unlink()
    toy = Toy(tmp_path)
    assert toy.checkpoints.restore() == 8
    assert toy.checkpoints.best.step == load_best(tmp_path, {"model": ToyStep().model}) == 6
    toy = Toy(tmp_path)
    toy.fit(NUM_STEPS)
    assert outcome(toy) == undisturbed[1]


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[0] ^= 0x10
    path.write_bytes(content)


FILES = ["variables.data-00000-of-00001", "variables.index", "state.json", "manifest.json"]


@pytest.mark.parametrize("injure", [truncate, flip, os.unlink])
@pytest.mark.parametrize("name", FILES)
def test_k4_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(undisturbed, run, name, injure):
    injure(run / "checkpoints/step-00000014" / name)
    toy = Toy(run)
    assert toy.checkpoints.restore() == 12
    assert len(toy.warnings) == 1 and "step-00000014" in toy.warnings[0] and name in toy.warnings[0]
    if (name, injure) == ("state.json", flip):
        toy = Toy(run)
        toy.fit(NUM_STEPS)
        assert outcome(toy) == undisturbed[1]


def test_c6_without_a_valid_checkpoint_nothing_is_done(run):
    for folder in (run / "checkpoints").iterdir():
        flip(folder / "variables.index")
    before = contents(run)
    with pytest.raises(UserError, match="none of the checkpoints.*step-00000014.*step-00000012"):
        Toy(run).fit(NUM_STEPS)
    assert contents(run) == before


@pytest.mark.parametrize("kind", ["nothing", "empty", "file", "dangling link"])
def test_c6_a_run_that_has_lost_its_checkpoints_does_not_start_again(run, kind):
    folder = run / "checkpoints"
    shutil.rmtree(folder)
    {
        "nothing": lambda: None,
        "empty": folder.mkdir,
        "file": folder.touch,
        "dangling link": lambda: folder.symlink_to("nowhere"),
    }[kind]()
    before = contents(run)
    with pytest.raises(UserError, match="checkpoints: the checkpoints of this run are missing; restore"):
        Toy(run).fit(NUM_STEPS)
    assert contents(run) == before


def test_c6_logs_alone_show_that_a_run_has_begun(tmp_path):
    kill(Toy(tmp_path), "update", 3)
    assert not (tmp_path / "best").exists()
    shutil.rmtree(tmp_path / "checkpoints")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="checkpoints of this run are missing"):
        Toy(tmp_path).fit(NUM_STEPS)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("injure, shown", [(shutil.rmtree, "is missing"), (lambda f: flip(f / FILES[0]), FILES[0])])
def test_c6_a_checkpoint_whose_best_model_is_lost_is_not_valid(run, injure, shown):
    injure(run / "best/step-00000009")
    before = contents(run)
    with pytest.raises(
        UserError, match=f"none of the checkpoints is valid .*step-00000014: best/step-00000009: {shown}"
    ):
        Toy(run).fit(NUM_STEPS)
    assert contents(run) == before


def test_k4_when_a_best_model_is_lost_an_older_checkpoint_finds_it_again(undisturbed, tmp_path):
    kill(Toy(tmp_path), "batch", 12)
    shutil.rmtree(tmp_path / "best/step-00000009")
    toy = Toy(tmp_path)
    toy.fit(NUM_STEPS)
    assert outcome(toy) == undisturbed[1]
    assert [warning.rsplit("/checkpoints/")[1] for warning in toy.warnings] == [
        "step-00000012: best/step-00000009: is missing; resuming from step-00000008"
    ]


def directory_for_a_manifest(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


def directory_for_a_state(folder):
    (folder / "state.json").rename(folder / "aside")
    (folder / "state.json").mkdir()


def no_file_name(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["a\0b"] = manifest["state.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("injure", [directory_for_a_manifest, directory_for_a_state, no_file_name])
def test_k4_what_is_of_another_kind_is_damage_and_goes(run, injure):
    injure(run / "checkpoints/step-00000014")
    toy = Toy(run)
    assert toy.checkpoints.restore() == 12
    assert len(toy.warnings) == 1 and "step-00000014" in toy.warnings[0]
    assert steps(run / "checkpoints") == [12]


@pytest.mark.parametrize("injure", [os.unlink, truncate], ids=["removed", "cut"])
@pytest.mark.parametrize("name", ["events.out.tfevents.*", "diagnostics.csv"])
def test_lost_curves_are_a_warning(run, name, injure):
    (path,) = (run / "events").glob(name)
    injure(path)
    toy = Toy(run)
    assert toy.checkpoints.restore() == NUM_STEPS
    assert toy.warnings == [f"{path}: has lost curves from before step 14"]
    assert toy.log.seconds() >= 0


@pytest.mark.parametrize(
    "key, changed, shown",
    [
        ("config", {"rate": 0.1, "net": {"units": 4}}, "config.rate: 0.01 -> 0.1"),
        ("config", {"rate": 0.01, "net": {"units": 4, "depth": 2}}, "config.net.depth: absent -> 2"),
        ("data", {"a": "1", "b": "2"}, 'data.b: absent -> "2"'),
        ("data", {"a": "2"}, 'data.a: "1" -> "2"'),
    ],
)
def test_c4_c5_a_changed_config_or_changed_data_is_refused_and_shown(run, key, changed, shown):
    before = contents(run)
    toy = Toy(run, fingerprint={**FINGERPRINT, key: changed})
    variables = fingerprint_of(toy.step.variables)
    with pytest.raises(UserError) as error:
        toy.fit(NUM_STEPS)
    assert shown in str(error.value)
    assert contents(run) == before and fingerprint_of(toy.step.variables) == variables


def test_a_long_list_of_changes_stays_readable(run):
    data = {f"patient{number:03}": "hash" for number in range(100)}
    with pytest.raises(UserError, match="and 96 more"):
        Toy(run, fingerprint={**FINGERPRINT, "data": data}).fit(NUM_STEPS)


def test_c8_another_version_is_a_warning(run):
    toy = Toy(run, fingerprint={**FINGERPRINT, "environment": {"tf": "2.16"}})
    assert toy.checkpoints.restore() == NUM_STEPS
    assert len(toy.warnings) == 1 and 'environment.tf: "2.15.1" -> "2.16"' in toy.warnings[0]


def test_the_precisions_of_all_sessions_are_known_and_float16_does_not_mix(tmp_path):
    for number, (precision, known) in enumerate(
        (
            ("float32", ["float32"]),
            ("mixed_bfloat16", ["float32", "mixed_bfloat16"]),
            ("mixed_bfloat16", ["float32", "mixed_bfloat16"]),
            ("mixed_float16", None),
        )
    ):
        session = Toy(tmp_path, fingerprint={**FINGERPRINT, "environment": {"precision": precision}})
        if known:
            session.fit(2 + number)
            assert [environment["precision"] for environment in session.checkpoints.environments] == known
        else:
            with pytest.raises(UserError, match="was begun in mixed_bfloat16: .*; go back to --config.precision="):
                session.fit(2 + number)


def test_the_programs_of_all_sessions_that_have_led_to_a_state_are_known(tmp_path):
    for number, (commit, known) in enumerate(
        (
            ("a1", ["a1"]),
            ("a1", ["a1"]),
            ("b2", ["a1", "b2"]),
            (None, ["a1", "b2", None]),
            ("b2", ["a1", "b2", None, "b2"]),
        )
    ):
        session = Toy(tmp_path, commit=commit)
        session.fit(2 + number)
        assert session.checkpoints.commits == known and session.warnings == []
    state = sorted((tmp_path / "checkpoints").glob("step-*"))[-1] / "state.json"
    state.write_text(json.dumps({key: one for key, one in json.loads(state.read_text()).items() if key != "commits"}))
    checkpoint.write_manifest(state.parent)
    session = Toy(tmp_path, commit="c3")  # after a program that wrote none down
    session.fit(8)
    assert session.checkpoints.commits == [None, "c3"]


def test_an_unchanged_run_resumes_without_a_warning(run):
    toy = Toy(run)
    assert toy.checkpoints.restore() == NUM_STEPS and not toy.warnings


def test_k1_a_full_disk_during_a_save_leaves_the_checkpoint_before(tmp_path):
    """A limit on the size of a file stands for the full disk: Python's and TensorFlow's writes both fail."""
    toy = Toy(tmp_path)
    toy.fit(4)
    before = contents(tmp_path / "checkpoints")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 500, 3000):  # breaks off in variables.data, in variables.data, in none but what comes later
        toy.checkpoints._objects["step"].ballast = tf.Variable(tf.zeros(1000))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(MachineError, match=r"step-00000008: File too large; see that"):
                toy.checkpoints.save(8)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert contents(tmp_path / "checkpoints") == before
    toy = Toy(tmp_path)
    assert toy.checkpoints.restore() == 4


@pytest.mark.parametrize("call", ["write_text", "mkdir", "rename", "fsync"])
def test_k1_any_failing_call_is_the_machines_fault_and_loses_nothing(tmp_path, monkeypatch, call):
    toy = Toy(tmp_path)
    toy.fit(4)
    before = contents(tmp_path / "checkpoints")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    owner = checkpoint.pathlib.Path if call in ("write_text", "mkdir") else checkpoint.os
    monkeypatch.setattr(owner, call, fail)
    with pytest.raises(MachineError, match="No space left on device"):
        toy.checkpoints.save(8)
    monkeypatch.undo()
    assert contents(tmp_path / "checkpoints") == before


def test_k5_tensorflows_own_index_file_is_not_used(run):
    (run / "checkpoints/checkpoint").touch()
    toy = Toy(run)
    assert toy.checkpoints.restore() == NUM_STEPS and not toy.warnings


def test_k8_a_stale_temporary_folder_is_removed(run):
    for parent in ("checkpoints", "best"):
        shutil.copytree(run / "checkpoints/step-00000014", run / parent / "tmp-step-00000016")
    toy = Toy(run)
    assert toy.checkpoints.restore() == NUM_STEPS
    assert not list(run.rglob("tmp-*"))


def test_no_damage_escapes_the_manifest(undisturbed, tmp_path):
    """300 random flips, truncations, extensions, removals and swaps: found, or without any effect."""
    source = undisturbed[0] / "checkpoints/step-00000014"
    original = {path.name: path.read_bytes() for path in source.iterdir()}
    rng = random.Random(0)
    harmless = 0
    for number in range(300):
        folder = tmp_path / str(number)
        folder.mkdir()
        name = rng.choice(sorted(original))
        damaged = {**original, name: distort(original[name], rng)}
        if rng.random() < 0.05:
            del damaged[name]
        for path, content in damaged.items():
            (folder / path).write_bytes(content)
        if find_damage(folder) is None:
            harmless += 1
            assert json.loads(damaged.pop("manifest.json")) == json.loads(original["manifest.json"])
            assert damaged == {path: content for path, content in original.items() if path in damaged}
            assert set(damaged) == set(FILES) - {"manifest.json"}
    assert harmless < 30


def distort(content, rng):
    kind = rng.choice(["flip", "flip", "truncate", "extend", "zero"])
    at = rng.randrange(len(content))
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    if kind == "truncate":
        return content[:at]
    if kind == "extend":
        return content + bytes(rng.randrange(1, 100))
    return content[:at] + bytes(len(content) - at)


def test_other_networks_do_not_take_a_checkpoint(run):
    class WiderStep(ToyStep):
        def __init__(self):
            super().__init__()
            self.extra = tf.Variable(1.0)

    toy = Toy(run)
    toy.checkpoints._objects["step"] = WiderStep()
    with pytest.raises(UserError, match="does not fit"):
        toy.fit(NUM_STEPS)


def test_an_optimizer_without_slots_does_not_pass_for_restored(run):
    toy = Toy(run)
    toy.step.optimizer = keras.optimizers.Adam(0.01)
    with pytest.raises(UserError, match="does not fit"):
        toy.fit(NUM_STEPS)


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    """The update after which a weight is NaN may still have had a finite loss."""
    toy = Toy(tmp_path)
    toy.fit(4)
    toy.step.model.layers[0].bias.assign([1.0, np.nan, 1.0, 1.0])
    for save in (lambda: toy.checkpoints.save(8), lambda: toy.checkpoints.save_best(8, 1.0, {"model": toy.step.model})):
        with pytest.raises(MachineError, match="bias.*not finite after step 8"):
            save()
    assert steps(tmp_path / "checkpoints") == [0, 4] and steps(tmp_path / "best") == [4]


def test_load_best_restores_the_kept_model_into_another_object(run, undisturbed):
    other = ToyStep()
    other.model.layers[0].bias.assign(tf.ones(4))
    assert load_best(run, {"model": other.model}) == 9
    twin = Toy(run.parent / "twin")
    twin.fit(9)
    assert fingerprint_of(other.model.variables) == fingerprint_of(twin.step.model.variables)


def test_load_best_takes_no_older_model_for_the_one_asked_for(tmp_path):
    kill(Toy(tmp_path), "batch", 12)
    model = ToyStep().model
    assert [load_best(tmp_path, {"model": model}, step) for step in (6, 9)] == [6, 9]
    shutil.rmtree(tmp_path / "best/step-00000009")
    with pytest.raises(UserError, match="best/step-00000009: is missing; restore"):
        load_best(tmp_path, {"model": model}, 9)


def test_load_best_refuses_a_path_that_tensorflow_takes_for_a_pattern(run):
    with pytest.raises(UserError, match="has one of .* in its path"):
        load_best(run.rename(run.with_name("run[1]")), {"model": ToyStep().model})


@pytest.mark.parametrize("name", FILES)
def test_load_best_refuses_a_damaged_model(run, name):
    flip(run / "best/step-00000009" / name)
    with pytest.raises(UserError, match=f"step-00000009.*{name}"):
        load_best(run, {"model": ToyStep().model})


def test_load_best_refuses_a_folder_without_one_another_network_and_s6_a_weights_file(run, tmp_path):
    with pytest.raises(UserError, match="no best model"):
        load_best(tmp_path / "nowhere", {"model": ToyStep().model})
    weights = tmp_path / "model.keras"
    ToyStep().model.save(weights)
    with pytest.raises(UserError, match="no best model"):
        load_best(weights, {"model": ToyStep().model})
    other, longer = keras.Sequential([keras.layers.Dense(5, input_shape=(3,))]), ToyStep().model
    longer.add(keras.layers.Dense(2))
    for model in (other, longer):
        with pytest.raises(UserError, match="does not fit"):
            load_best(run, {"model": model})


def test_y3_a_reader_sees_the_old_or_the_new_model_at_every_moment(tmp_path, monkeypatch):
    """Between any two system calls of saves and rotations, the model found is one that was saved whole."""
    written = tf.Variable(0)
    toy = Toy(tmp_path)
    toy.checkpoints._objects = {"model": tf.Module()}
    seen = []

    def reading(call):
        def read_then_call(*args, **kwargs):
            if toy.checkpoints._bests.exists() and steps(tmp_path / "best"):
                value = tf.Variable(0)
                number = load_best(tmp_path, {"value": value})
                assert number == int(value)
                seen.append(number)
            return call(*args, **kwargs)

        return read_then_call

    for name in ("rename", "fsync", "unlink", "rmdir", "open"):
        monkeypatch.setattr(checkpoint.os, name, reading(getattr(os, name)))
    for number in range(1, 7):
        written.assign(number)
        toy.checkpoints.save_best(number, 1.0, {"value": written})
        toy.checkpoints.save(number)
    assert seen == sorted(seen) and set(seen) == set(range(1, 7))


def test_y3_a_removal_that_is_cut_off_leaves_no_half_of_a_model(tmp_path, monkeypatch):
    kill(Toy(tmp_path), "batch", 12)
    (tmp_path / "checkpoints/step-00000012/state.json").unlink()

    def remove_half(folder):
        (folder / "variables.index").unlink()
        raise Killed

    toy = Toy(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", remove_half)
    for _ in range(2):  # first the damaged checkpoint, then the best model that is later than the one before
        with pytest.raises(Killed):
            toy.checkpoints.restore()
        for half in tmp_path.rglob("tmp-*"):
            half.rename(tmp_path / f"away-{half.name}")
    assert load_best(tmp_path, {"model": ToyStep().model}) == 6


def test_load_best_looks_again_when_the_model_is_replaced_while_it_reads(tmp_path, monkeypatch):
    toy = Toy(tmp_path)
    variable, value = tf.Variable(1), tf.Variable(0)
    toy.checkpoints.save_best(1, 1.0, {"value": variable})

    def replace_then_look(folder, look=find_damage):
        monkeypatch.undo()
        variable.assign(2)
        toy.checkpoints.save_best(2, 2.0, {"value": variable})
        shutil.rmtree(tmp_path / "best/step-00000001")
        return look(folder)

    monkeypatch.setattr(checkpoint, "find_damage", replace_then_look)
    assert load_best(tmp_path, {"value": value}) == int(value) == 2


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Power may fail at any moment: files and folder are synced, then renamed, then the parent is synced."""
    toy, calls = Toy(tmp_path), []

    def fsync(descriptor, call=os.fsync):
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        call(descriptor)

    def rename(source, target, call=os.rename):
        calls.append("rename")
        call(source, target)

    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    monkeypatch.setattr(checkpoint.os, "rename", rename)
    toy.checkpoints.save(4)
    at = calls.index("rename")
    assert sorted(calls[at - 5 : at - 1]) == sorted(FILES)
    assert calls[at - 1] == "tmp-step-00000004" and calls[at + 1] == "checkpoints"

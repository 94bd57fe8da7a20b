"""Spoils everything that a user brings or that a run leaves behind, at random, and watches what the programs say.

    python tests/fuzz.py --trials=1000 --seed=0 --minutes=45

Each trial spoils one thing in a fresh copy of a small world (a data set, a finished run, an interrupted one, a cache,
results of the grid), or a command line, and runs a command. Whatever happens, the command must

- end with status 0, 2, 3 or 143, after at most one line that begins with "error: ", without a traceback;
- leave everything as it was, but for the cache, if it ends with 2 before anything was trained;
- give the very numbers that the sound world gives, if it ends with 0 and what was spoilt is what tfaug itself has
  written; unless it warns.

Prints a table by kind, and every fault with the trial's number: `--only=NUMBER` repeats one and keeps its folder.
The exit status is 1 if there is a fault. `--plant=NAME` puts a fault into the programs, which must be found.
"""

from __future__ import annotations

import argparse
import collections
import csv
import io
import json
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time

import programs
from data_.patients import anatomy, write_nifti

RUN = "runs/own-n1-set1-seg-aff-seed0"
CASES = ("case1", "case2", "case3", "case4", "case5")
TINY = (
    *("--config=own", "--config.data.root=data", "--config.data.num_workers=1"),
    *("--config.data.image_size=32", "--config.data.resolution=1.5", "--config.data.n4_shrink=0"),
    *("--config.model.filters=2", "--config.segment.batch_size=6", "--config.segment.num_steps=4"),
    *("--config.segment.eval_every=2", "--config.report_every=2", "--config.picture_every=4"),
    *("--config.checkpoint_every=2", "--config.splits.file=splits.json", "--aug=aff"),
)
TRAIN = ("tfaug", "train", *TINY, "--stage=seg", "--results=results")
CHECK = ("tfaug", "check", *TINY[:-1])
EVALUATE = ("tfaug", "evaluate", f"--run={RUN}")
TABLE = ("tfaug", "evaluate", "--table1", "--results=results", *TINY[:-1])
PREDICT = ("tfaug", "predict", "--input=data/imagesTs", "--output=masks", f"--run={RUN}")
FOREIGN = (0, 2, 3, 143)
VALUES = (
    *(
        "",
        " ",
        "0",
        "-1",
        "1e400",
        "nan",
        "inf",
        "None",
        "True",
        "[]",
        "()",
        "{}",
        "'",
        '"',
        "\\",
        "\0"[:0],
        "..",
        "/",
        "~",
    ),
    *(
        "9" * 40,
        "a" * 5000,
        "ü",
        "\x1b[31m",
        "$HOME",
        "%s",
        "(1,2",
        "{'a': 1}",
        "('case1',)",
        "auto",
        "my_module:name",
        "os:system",
    ),
    *(
        "1",
        "2",
        "32",
        "64",
        "3.5",
        "1e-9",
        "aff",
        "best",
        "paper",
        "float16",
        "/dev/null",
        "/proc/self/mem",
        "data",
        RUN,
    ),
)
NUMBERS = (0, -1, 1, 2, 255, 256, -32768, 2**31 - 1, 2**31, 2**63, 2**64, 1e-30, 1e30, float("inf"), float("nan"))


class Fault(Exception):
    """What a command did and must not do."""


# The world, and what may happen to a file.


def make_world(folder: pathlib.Path, server: programs.Server) -> None:
    """Writes a data set in nnU-Net's layout, trains on it, and leaves a finished and an interrupted run."""
    (folder / "data").mkdir(parents=True)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / "data" / name).mkdir()
    for seed, case in enumerate(CASES):
        image, label = anatomy(seed, (24, 26, 3))
        unlabelled = case == CASES[-1]
        write_nifti(folder / "data" / ("imagesTs" if unlabelled else "imagesTr") / f"{case}_0000.nii.gz", image)
        if not unlabelled:
            write_nifti(folder / "data/labelsTr" / f"{case}.nii.gz", label.clip(max=2))
    described = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "inner": 2, "outer": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (folder / "data/dataset.json").write_text(json.dumps(described))
    splits = {"labelled": ["case1"], "validation": ["case2"], "test": ["case3", "case4"], "unlabelled": ["case5"]}
    (folder / "splits.json").write_text(json.dumps({**splits, "labelled": {"n1": [splits["labelled"]]}}))
    rows = [(case, split) for split, cases in splits.items() for case in cases]
    (folder / "splits.csv").write_text("case,split\n" + "".join(f"{case},{split}\n" for case, split in rows))
    done = server.run(*TRAIN, cwd=folder)
    assert done.returncode == 0, done.stderr
    shutil.copytree(folder / RUN, folder / "interrupted" / RUN)
    half = folder / "interrupted" / RUN
    (half / "report.json").unlink()
    shutil.rmtree(half / "evaluation")
    shutil.rmtree(half / "checkpoints/step-00000004")


def spoil_bytes(rng: random.Random, path: pathlib.Path) -> str:
    """Damages a file as disks, networks and people do."""
    content = bytearray(path.read_bytes())
    how = rng.choice(("flip", "flip", "truncate", "extend", "zeros", "empty", "delete", "folder", "noise"))
    if how == "flip" and content:
        for _ in range(rng.choice((1, 1, 8))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == "truncate":
        del content[rng.randrange(len(content) + 1) :]
    elif how == "extend":
        content += bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40)))
    elif how == "zeros" and content:
        start = rng.randrange(len(content))
        content[start : start + 64] = bytes(len(content[start : start + 64]))
    elif how == "noise" and content:
        start = rng.randrange(len(content))
        content[start : start + 16] = bytes(rng.randrange(256) for _ in content[start : start + 16])
    elif how == "empty":
        content.clear()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "delete":
        path.write_bytes(content)
    return f"{how} {path}"


def spoil_json(rng: random.Random, path: pathlib.Path) -> str:
    """Changes one node of a JSON file, or damages the file."""
    if rng.random() < 0.2:
        return spoil_bytes(rng, path)
    content = json.loads(path.read_bytes())
    nodes = list(_nodes(content))
    parent, key = rng.choice(nodes)
    new = rng.choice((None, "", [], {}, 0, -1, 1e300, "a" * 3000, "..", "\x1b[31m", True, {"a": {"b": []}}, *CASES[:2]))
    how = rng.choice(("delete", "replace", "replace", "add"))
    if how == "delete":
        del parent[key]
    elif how == "replace":
        parent[key] = new
    elif isinstance(parent, dict):
        parent[rng.choice(("", "extra", "0", "labels", *CASES))] = new
    else:
        parent.append(new)
    path.write_text(json.dumps(content))
    return f"{how} {key!r} of {path} ({new!r})"


def _nodes(content):
    """(container, key) of everything in JSON."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(pairs):
        yield content, key
        yield from _nodes(value)


# The kinds. Each spoils a folder and returns the command, what it has done, and whether numbers may be others then.


def command_line(rng, folder):
    command = list(rng.choice((TRAIN, CHECK, EVALUATE, TABLE, PREDICT)))
    at = rng.randrange(1, len(command) + 1)
    how = rng.choice(("drop", "twice", "misspell", "value", "add"))
    if how == "add" or at == len(command):
        flag = rng.choice(
            ("stage", "gen", "aug", "workdir", "results", "split", "run", "sets", "methods", "check", "x", "help")
        )
        command.append(f"--{flag}={rng.choice(VALUES)}")
    elif how == "drop":
        del command[at]
    elif how == "twice":
        command.append(command[at])
    elif how == "misspell":
        text = list(command[at])
        text[rng.randrange(len(text))] = rng.choice("abc-=.'(ü")
        command[at] = "".join(text)
    else:
        command[at] = f"{command[at].split('=')[0]}={rng.choice(VALUES)}"
    return command, f"{how}: {command[-1] if how in ('add', 'twice') else command[min(at, len(command) - 1)]}", True


def config_value(rng, folder):
    from tfaug.configs import own

    keys = [key for key in _keys(own.get_config()) if not re.search("num_steps|cache_dir|filters|num_workers", key)]
    flag = f"--config.{rng.choice(keys)}={rng.choice((*VALUES, *map(str, NUMBERS)))}"
    return [*CHECK, flag], flag, True


def _keys(config, prefix=""):
    for key, value in config.items():
        yield from _keys(value, f"{prefix}{key}.") if hasattr(value, "items") else [f"{prefix}{key}"]


def header(rng, folder):
    import gzip

    path = rng.choice(sorted((folder / "data").glob("*/*.nii.gz")))
    content = bytearray(gzip.decompress(path.read_bytes()))
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(348)
        width = rng.choice((1, 2, 4))
        content[at : at + width] = bytes(rng.randrange(256) for _ in range(width))
    path.write_bytes(gzip.compress(content))
    return CHECK, f"header of {path.name}", True


def voxels(rng, folder):
    import numpy as np

    path = rng.choice(sorted((folder / "data").glob("*/*.nii.gz")))
    image, label = anatomy(rng.randrange(9), (24, 26, 3))
    array = rng.choice((image, label, image.astype(np.float32), image.astype(np.float64)))
    how = rng.choice(("constant", "nan", "inf", "huge", "negative", "shape", "spacing", "type", "few"))
    spacing = (1.5, 1.25, 8.0)
    if how == "constant":
        array = np.full_like(array, rng.choice((0, 1, 7)))
    elif how in ("nan", "inf", "huge"):
        array = array.astype(np.float32)
        array.flat[rng.randrange(array.size)] = {"nan": np.nan, "inf": np.inf, "huge": 3e38}[how]
    elif how == "negative":
        array = array.astype(np.float32) - 500
    elif how == "shape":
        array = array[: rng.randrange(1, 24), : rng.randrange(1, 26), : rng.randrange(1, 4)]
    elif how == "spacing":
        spacing = tuple(rng.choice((0.001, 1.5, 1.25, 300.0, 8.0)) for _ in range(3))
    elif how == "type":
        array = array.astype(rng.choice(("u1", "i2", "u2", "i4", "i8", "f8")))
    else:
        array = (array > np.percentile(array, 99.9)).astype(array.dtype)
    write_nifti(path, np.ascontiguousarray(array), spacing)
    return CHECK, f"{how} voxels of {path.name}", True


def scan_bytes(rng, folder):
    path = rng.choice(sorted((folder / "data").glob("*/*.nii.gz")))
    return CHECK, spoil_bytes(rng, path), True


def dataset_json(rng, folder):
    return CHECK, spoil_json(rng, folder / "data/dataset.json"), True


def splits_json(rng, folder):
    return CHECK, spoil_json(rng, folder / "splits.json"), True


def splits_csv(rng, folder):
    path = folder / "splits.csv"
    if rng.random() < 0.5:
        text = spoil_bytes(rng, path)
    else:
        rows = list(csv.reader(io.StringIO(path.read_text())))
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice((*VALUES, *CASES, "test", "labelled", "fold"))
        out = io.StringIO()
        csv.writer(out).writerows(rows)
        path.write_text(out.getvalue())
        text = f"{row} in splits.csv"
    return [*CHECK, "--config.splits.file=splits.csv"], text, True


def finished_run(rng, folder):
    files = [path for path in sorted((folder / RUN).rglob("*")) if path.is_file() and path.name != "lock"]
    path = rng.choice(files)
    text = spoil_json(rng, path) if path.suffix == ".json" and rng.random() < 0.7 else spoil_bytes(rng, path)
    pictures = (
        path.suffix == ".png" or "tfevents" in path.name or path.name == "diagnostics.csv" or "masks" in path.parts
    )
    return rng.choice((EVALUATE, EVALUATE, TRAIN)), text, pictures


def checkpoint(rng, folder):
    _interrupt(folder)
    files = [path for path in sorted((folder / RUN / "checkpoints").rglob("*")) if path.is_file()]
    return TRAIN, spoil_bytes(rng, rng.choice(files)), False


def interrupted_run(rng, folder):
    _interrupt(folder)
    files = [path for path in sorted((folder / RUN).rglob("*")) if path.is_file() and path.name != "lock"]
    path = rng.choice(files)
    text = spoil_json(rng, path) if path.suffix == ".json" and rng.random() < 0.7 else spoil_bytes(rng, path)
    return TRAIN, text, False


def _interrupt(folder):
    shutil.rmtree(folder / RUN)
    shutil.copytree(folder / "interrupted" / RUN, folder / RUN)
    shutil.rmtree(folder / "results")


def cache_entry(rng, folder):
    _interrupt(folder)
    return TRAIN, spoil_bytes(rng, rng.choice(sorted((folder / "cache").glob("*.npz")))), False


def results_file(rng, folder):
    files = [path for path in sorted((folder / "results").iterdir()) if path.is_file()]
    return TABLE, spoil_json(rng, rng.choice([path for path in files if path.suffix == ".json"])), False


def to_predict(rng, folder):
    if rng.random() < 0.5:
        text = spoil_bytes(rng, folder / "data/imagesTs/case5_0000.nii.gz")
    else:
        _, text, _ = finished_run(rng, folder)
    return PREDICT, text, True


KINDS = {  # with how many of a hundred trials
    **{command_line: 22, config_value: 18, header: 11, voxels: 7, scan_bytes: 7, dataset_json: 7, splits_json: 5},
    **{
        splits_csv: 4,
        finished_run: 7,
        checkpoint: 3,
        interrupted_run: 2,
        cache_entry: 2,
        results_file: 3,
        to_predict: 2,
    },
}

# Faults to put in: each is a program that the server runs first.
PLANTED = {
    "traceback": "import tfaug.data.oddities as m\nold = m.of_scan\n"
    "def of_scan(task, scan):\n    if scan.label is not None and task.absent(scan.label):\n"
    "        raise KeyError(scan.case)\n"
    "    return old(task, scan)\n"
    "m.of_scan = of_scan",
    "silence": "import tfaug.experiment.identity as m\n"
    "m.is_evaluated = lambda folder, made_from: (folder / 'evaluated.json').is_file()",
    "written": "import tfaug.config as m, pathlib\nold = m.check\n"
    "def check(config):\n    pathlib.Path('left-behind').touch()\n    return old(config)\nm.check = check",
}


# A trial.


def contents(folder):
    """What a refusal must leave as it was."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.name != "lock"
        and not {"cache", "logs", "masks"} & set(path.relative_to(folder).parts)
        and not path.parent.name.endswith("-check")
    }


def numbers(folder, command, stdout):
    """The numbers that a user sees and keeps: the table on standard output, and that of the evaluation."""
    if tuple(command) == TABLE:
        return [], stdout
    tables = [path.read_text(errors="replace") for path in sorted((folder / RUN).glob("evaluation/*/dice.csv"))]
    return tables, re.findall(r".*\d\.\d{2,} \+- .*", stdout)


def trial(number, seed, world, server, folder):
    """One trial; returns its kind, the exit status and what was done. Raises Fault."""
    rng = random.Random(f"{seed} {number}")
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    shutil.copytree(world, folder, symlinks=True)
    command, text, other_numbers = kind(rng, folder)
    before = contents(folder)
    command = [part.replace("\0", "") for part in command]
    done = server.run(*command, cwd=folder, timeout=120)
    shown = f"{kind.__name__}, trial {number}: {text[:200]!r}; {' '.join(command[:2])} ended with {done.returncode}"
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if done.returncode not in FOREIGN or "Traceback" in done.stderr + done.stdout:
        raise Fault(f"{shown}\n{done.stderr[-1500:]}")
    strange = [line for line in lines if not line.startswith(("error: ", "warning: "))]
    if len(errors) != (done.returncode in (2, 3)) or (strange and done.returncode != 143):
        raise Fault(f"{shown}, with these lines:\n{done.stderr[-1500:]}")
    if done.returncode == 2 and kind not in (to_predict,):
        after = contents(folder)
        changed = sorted(str(path) for path in {*before, *after} if before.get(path) != after.get(path))
        if changed:
            raise Fault(f"{shown}, but {', '.join(changed[:5])} changed")
    if done.returncode == 0 and not other_numbers and not any(line.startswith("warning: ") for line in lines):
        expected, found = EXPECTED[tuple(command)], numbers(folder, command, done.stdout)
        if found != expected:
            raise Fault(f"{shown}: without a word, other numbers:\n{found}\n{expected}")
    return kind.__name__, done.returncode, shown


EXPECTED = {}


def main() -> int:
    """Prints what happened; returns the number of faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--kind", help="only trials of this kind")
    parser.add_argument("--plant", choices=PLANTED)
    options = parser.parse_args()
    start, faults, found = time.monotonic(), [], collections.defaultdict(collections.Counter)
    server = programs.Server(programs.ROOMS, first=PLANTED.get(options.plant, ""))
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        world = scratch / "world"
        sound = programs.Server(programs.ROOMS) if options.plant else server
        make_world(world, sound)
        for command in (TRAIN, EVALUATE, TABLE):
            EXPECTED[command] = numbers(world, command, sound.run(*command, cwd=world).stdout)
        trials = [options.only] if options.only is not None else range(options.trials)
        for number in trials:
            if time.monotonic() - start > 60 * options.minutes:
                print(f"stopped after {options.minutes:g} minutes, before trial {number}")
                break
            if (
                options.kind
                and random.Random(f"{options.seed} {number}").choices(list(KINDS), list(KINDS.values()))[0].__name__
                != options.kind
            ):
                continue
            folder = scratch / f"trial{number}"
            try:
                kind, status, shown = trial(number, options.seed, world, server, folder)
            except Fault as fault:
                faults.append(fault)
                print(f"FAULT {fault}\n", flush=True)
                found["faults"][str(fault).split(",")[0]] += 1
            else:
                found[kind][status] += 1
                if options.only is not None:
                    print(shown)
            if options.only is not None:
                shutil.copytree(folder, "fuzz-trial", dirs_exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            if options.plant and faults:
                break  # it is found
    count = sum(sum(counter.values()) for counter in found.values())
    print(f"{'kind':16} " + " ".join(f"{status:>5}" for status in FOREIGN) + "  faults")
    for kind in KINDS:
        row = " ".join(f"{found[kind.__name__][status]:5}" for status in FOREIGN)
        print(f"{kind.__name__:16} {row}  {found['faults'][kind.__name__]:6}")
    print(f"{count} trials in {(time.monotonic() - start) / 60:.1f} minutes, seed {options.seed}: {len(faults)} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())

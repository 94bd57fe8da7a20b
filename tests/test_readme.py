"""Every command in the README is run, at a tiny size; its lines of Python are run by test_extending.py."""

import pathlib
import re
import shlex
import shutil

import pytest
from fast_networks import FAST
from programs import run
from test_end_to_end import TINY as TINY_HEART
from test_extending import TINY as TINY_OWN
from test_extending import write_msd

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
HEART = (*TINY_HEART, "--config.data.root=HEARTS")
GRID = (*FAST, "--methods=none", "--num_labelled=1", "--sets=1", "--repeats=1", "--workers=1")
OWN = TINY_OWN[1:]
QUICK = (*FAST, "--stage=seg", "--aug=none")

# What is added to each command, so that it takes seconds.
FLAGS = {
    "python train.py": HEART,
    "python train.py --stage=aug --gen=deform": HEART,
    "python train.py --stage=aug --gen=intensity": HEART,
    "python train.py --stage=seg --aug=aff_gd_gi": HEART,
    "python evaluate.py --split test --aug=aff_gd_gi": HEART,
    "python train.py --stage=table1": (*HEART, *GRID),
    "python evaluate.py --table1": (*HEART, *FAST),
    "python evaluate.py --figures": (*HEART, *FAST),
    "python train.py --config=configs/acdc.py --config.data.root=HEARTS": (*TINY_HEART, *QUICK),
    "python train.py --config=configs/acdc_quick.py --config.data.root=HEARTS": (
        *TINY_HEART,
        "--config.augment.of_intensity={}",  # its own number of steps
        "--config.augment.lambda_diversity=0",
        *QUICK,
    ),
    "python train.py --config=configs/own.py --config.data.root=OWN": (*OWN, *QUICK),
    "python train.py --check --config=configs/own.py --config.data.root=OWN": OWN,
}
ELSEWHERE = {"pip install -e '.[test]' && pytest"}  # the test command itself
NOT_PYTHON = {"tensorboard --logdir runs"}


def commands():
    """The indented lines of the README, without comments; DIR is what its section says."""
    found, own = [], False
    for line in README.splitlines():
        own = line == "## Your own data" if line.startswith("## ") else own
        if line.startswith("    "):
            text = line.split("  #")[0].strip().removeprefix("pip install -e . && ")
            found.append(text.replace("=DIR", "=OWN" if own else "=HEARTS"))
    return found


@pytest.fixture
def folder(hearts, trained_hearts, tmp_path):
    """A folder in which the first command has been run, with the data that others ask for."""
    folder = tmp_path / "readme"
    shutil.copytree(trained_hearts[0], folder)
    (folder / "HEARTS").symlink_to(hearts)
    write_msd(folder / "OWN", {"anterior": 1, "posterior": 2})
    for name in ("train.py", "evaluate.py", "configs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def test_every_command_runs(folder):
    assert set(commands()) - ELSEWHERE - NOT_PYTHON == set(FLAGS)
    for command in commands():
        if command not in FLAGS:
            continue
        program, *flags = shlex.split(command)[1:]
        done = run(str(folder / program), *flags, *FLAGS[command], cwd=folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_every_link_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"

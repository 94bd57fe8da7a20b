"""What an installation rests on: versions, requirements, and the one command that README and CI share."""

import os
import pathlib
import re
import runpy
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tfaug

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEST_COMMAND = "pip install -e '.[test]' && pytest"


def test_versions_agree():
    assert metadata.version("tfaug") == tfaug.__version__
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] in (tfaug.__version__, "Unreleased")


@pytest.mark.parametrize("version", ["3.0.0", "3.12.1", "1.15.0", "20.0"])
def test_another_keras_is_refused_with_the_remedy(monkeypatch, version):
    monkeypatch.setattr(metadata, "version", {"keras": version}.__getitem__)
    with pytest.raises(ImportError, match=rf"Keras 2\.x, found {re.escape(version)}.*pip install tensorflow==2\.15\.1"):
        runpy.run_path(tfaug.__file__)


def test_any_keras_2_is_taken(monkeypatch):
    monkeypatch.setattr(metadata, "version", {"keras": "2.15.1"}.__getitem__)
    assert runpy.run_path(tfaug.__file__)["__version__"] == tfaug.__version__


def test_tensorboard_starts():
    command = [sys.executable, "-m", "tensorboard.main", "--version"]  # fails without setuptools' pkg_resources
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == metadata.version("tensorboard"), done.stderr


def test_no_folder_of_the_package_is_left_out_of_an_installation():
    folders = {path.parent for path in (ROOT / "tfaug").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def needed(pinned, package="tfaug", extras=("", "test"), seen=None):
    """The names of all that `package` needs, directly or through others.

    What a release other than the pinned one needs is its own affair: here may be newer ones than constraints.txt knows.
    """
    seen = set() if seen is None else seen
    for text in metadata.requires(package) or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            name = canonicalize_name(requirement.name)
            yield name
            wanted = (name, *sorted(requirement.extras))
            if wanted not in seen and metadata.version(name) == pinned.get(name):
                seen.add(wanted)
                yield from needed(pinned, name, ("", *requirement.extras), seen)


def constraints(python):
    """The pinned version of each package, under one version of Python."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    valid = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": python})]
    names = [canonicalize_name(pin.name) for pin in valid]
    assert len(names) == len(set(names)), "a package is pinned twice"
    return {name: str(pin.specifier).removeprefix("==") for name, pin in zip(names, valid)}


@pytest.mark.parametrize("python", ["3.9", "3.10", "3.11"])
def test_constraints_satisfy_what_the_package_asks_for(python):
    pinned = constraints(python)
    for text in metadata.requires("tfaug"):
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_constraints_pin_everything_that_the_pinned_releases_need():
    pinned = constraints("{}.{}".format(*sys.version_info))
    names = set(needed(pinned))
    assert {"tensorflow", "numpy", "ruff", "werkzeug"} < names
    assert not names - set(pinned)


def test_ci_runs_the_command_that_the_readme_gives():
    assert TEST_COMMAND in (ROOT / "README.md").read_text()
    assert TEST_COMMAND in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)

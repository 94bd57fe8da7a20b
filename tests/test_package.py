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
from packaging.version import Version

import tfaug
from tfaug.engine import determinism

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEST_COMMAND = "pip install -e '.[test]' && pytest"


def test_versions_agree():
    assert metadata.version("tfaug") == tfaug.__version__
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] in (Version(tfaug.__version__).base_version, "Unreleased")  # of 0.2.0.dev0, 0.2.0


@pytest.fixture
def installed(monkeypatch):
    """Sets which packages seem to be installed, and has TF_USE_LEGACY_KERAS restored afterwards."""
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "")  # else what is not there now would be left behind
    monkeypatch.delenv("TF_USE_LEGACY_KERAS")

    def install(**versions):
        def version(package):
            if package.replace("-", "_") not in versions:
                raise metadata.PackageNotFoundError(package)
            return versions[package.replace("-", "_")]

        monkeypatch.setattr(metadata, "version", version)

    return install


@pytest.mark.parametrize("version", ["3.0.0", "3.12.1", "1.15.0", "20.0"])
def test_another_keras_is_refused_with_the_remedy(installed, version):
    installed(keras=version)
    with pytest.raises(ImportError, match=rf"Keras 2\.x, found keras {re.escape(version)}.*none.*pip install tf-keras"):
        runpy.run_path(tfaug.__file__)


def test_keras_2_is_taken_and_left_to_tensorflow(installed):
    installed(keras="2.15.1")
    assert runpy.run_path(tfaug.__file__)["__version__"] == tfaug.__version__
    assert "TF_USE_LEGACY_KERAS" not in os.environ


@pytest.mark.parametrize("packages, expected", [({}, None), ({"tf_keras": "2.15.0"}, "1")])
def test_v4_the_variable_is_taken_back_where_tensorflow_would_look_in_vain(installed, monkeypatch, packages, expected):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    installed(keras="2.15.1", **packages)
    runpy.run_path(tfaug.__file__)
    assert os.environ.get("TF_USE_LEGACY_KERAS") == expected


@pytest.mark.parametrize("choice, expected", [(None, "1"), ("0", "0")])
def test_next_to_keras_3_tensorflow_is_told_of_keras_2_unless_the_user_chose(installed, monkeypatch, choice, expected):
    if choice:
        monkeypatch.setenv("TF_USE_LEGACY_KERAS", choice)
    installed(keras="3.15.1", tf_keras="2.21.0")
    runpy.run_path(tfaug.__file__)
    assert os.environ["TF_USE_LEGACY_KERAS"] == expected


@pytest.mark.parametrize("choice, expected", [(None, "1"), ("0", "0")])
def test_convolutions_are_onednns_unless_the_user_chose(monkeypatch, choice, expected):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if choice:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", choice)
    runpy.run_path(tfaug.__file__)
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == expected
    assert determinism.uses_onednn() == (expected == "1")


@pytest.mark.parametrize("variable, first", [("0", "tensorflow"), ("1", "tfaug")])
def test_v4_keras_is_version_2_whatever_the_environment_says(variable, first):
    """And of all warnings, the notice of TensorFlow Addons' end of life alone is silenced."""
    code = f"import {first}, tensorflow\nfrom tfaug.compat import keras\nprint(keras.Model.__module__)"
    code += "\nimport warnings\nwarnings.warn('heard', UserWarning)"
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": variable, "PYTHONWARNINGS": "always::UserWarning"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip().endswith("keras.src.engine.training"), done.stdout + done.stderr  # Keras 3 has no engine
    assert "heard" in done.stderr and "TensorFlow Addons" not in done.stderr


@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
def test_v4_a_clone_works_with_a_safe_path_installed_or_not(program, tmp_path):
    """A copy elsewhere, with packages that hold no tfaug, must find its own."""
    for name in (program, "tfaug", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / program).unlink()
    (tmp_path / program).write_text((ROOT / program).read_text())  # a link would lead back here
    code = (
        "import runpy, sys\n"
        f"sys.path = [path for path in sys.path if path not in ('', {str(ROOT)!r})]\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder).lower()]\n"
        f"sys.argv = ['{program}', '--help']\n"
        f"runpy.run_path({str(tmp_path / program)!r}, run_name='__main__')\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "PYTHONSAFEPATH": "1"},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "--workdir" in done.stdout


def test_tensorflow_loads_without_a_word():
    code = "import sys\nfrom tfaug.commands import cli\ncli.load_tensorflow()\nprint('heard', file=sys.stderr)"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code + "\nsys.modules['tensorflow']"], capture_output=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, b"heard\n")


def test_tensorboard_starts():
    command = [sys.executable, "-m", "tensorboard.main", "--version"]  # fails without setuptools' pkg_resources
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == metadata.version("tensorboard"), done.stderr


def test_no_folder_of_the_package_is_left_out_of_an_installation():
    folders = {path.parent for path in (ROOT / "tfaug").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def needed(pinned, package="tfaug", extras=("", "test"), seen=None):
    """The names of all that `package` needs, directly or through others.

    What a release other than the pinned one needs is its own affair: here may be newer ones than the constraints know.
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
    new = tuple(map(int, python.split("."))) >= (3, 12)
    lines = (ROOT / ("constraints-new.txt" if new else "constraints.txt")).read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    valid = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": python})]
    names = [canonicalize_name(pin.name) for pin in valid]
    assert len(names) == len(set(names)), "a package is pinned twice"
    return {name: str(pin.specifier).removeprefix("==") for name, pin in zip(names, valid)}


@pytest.mark.parametrize("python", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_constraints_satisfy_what_the_package_asks_for(python):
    pinned = constraints(python)
    requirements = [Requirement(text) for text in metadata.requires("tfaug")]
    environments = [{"python_version": python, "extra": extra} for extra in ("", "test", "cluster", "onnx", "docs")]
    asked = [r for r in requirements if r.marker is None or any(map(r.marker.evaluate, environments))]
    assert {"tensorflow", "numpy"} < {requirement.name for requirement in asked}
    for requirement in asked:
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

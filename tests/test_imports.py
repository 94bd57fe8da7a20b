"""Who may import whom, and what nobody may call: read from the syntax tree of every module."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIRST_PARTY = ("tfaug", "configs", "benchmarks", "tests", "train", "evaluate")

# Processes that prepare and score scans import these, and so does the one that runs the grid: no TensorFlow there.
WORKER_MODULES = (
    *("tfaug.commands.check", "tfaug.commands.cli", "tfaug.commands.main", "tfaug.commands.table1"),
    *("tfaug.experiment.sources", "tfaug.config", "tfaug.plugins", "tfaug.types", "tfaug.streams", "tfaug.prediction"),
    "tfaug.experiment.exporting",
    *("tfaug.augment.methods", "tfaug.evaluation", "tfaug.indices", "tfaug.metrics", "tfaug.pictures"),
    *(f"tfaug.data.{name}" for name in ("auto", "cache", "check", "dataset", "images", "preprocess", "splits")),
    *(f"tfaug.data.readers.{name}" for name in ("acdc", "base", "msd", "pairs", "scans")),
    "tfaug.phantom.cohort",
    *(f"tfaug.engine.{name}" for name in ("errors", "files", "progress", "run_dir", "signals", "workers")),
    *(f"tfaug.table1.{name}" for name in ("cluster", "grid", "plan", "render", "results")),
)
# A spawned worker imports its parent's main program again; these train, but not before they have read their flags.
MAIN_PROGRAMS = (
    *("train", "evaluate", "tfaug.__main__", "tfaug.commands.train", "tfaug.commands.evaluate"),
    *("tfaug.commands.report", "tfaug.report.make"),
)

# FAULTS S1, S2, S6, S8: code in a file that a user brings must never run, nor a shell.
FORBIDDEN_CALLS = {
    *("eval", "exec", "os.system", "os.popen", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load"),
    *(f"{module}.{name}" for module in ("pickle", "dill", "joblib", "marshal") for name in ("load", "loads")),
    *("pickle.Unpickler", "shelve.open"),
    *(f"{keras}.models.load_model" for keras in ("keras", "tf_keras", "tensorflow.keras", "tfaug.compat.keras")),
}
MACHINE_PATH = re.compile(r"/(?:root|home|work|Users|mnt|scratch|opt)/\w")


def sources():
    """Path of every Python file of the project, by module name."""
    files = [*ROOT.glob("*.py"), *(path for name in FIRST_PARTY for path in (ROOT / name).rglob("*.py"))]
    return {module_name(path.relative_to(ROOT)): path for path in sorted(files)}


def module_name(path):
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = sources()


def imports(module, tree, known=None):
    """Modules that a tree imports anywhere, as absolute names; of `from a import b`, `a.b` if that is a module."""
    known = SOURCES if known is None else known
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = node.module or ""
            if node.level:
                package = module.split(".") if known.get(module, ROOT).name == "__init__.py" else module.split(".")[:-1]
                parent = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            names = {f"{parent}.{alias.name}" for alias in node.names}
            found |= {name if name in known else parent for name in names}
    return found


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


IMPORTS = {module: imports(module, parse(path)) for module, path in SOURCES.items()}


def first_party(modules):
    return {module for module in modules if module.split(".")[0] in FIRST_PARTY}


def test_imports_go_down_only():
    """The contracts are in pyproject.toml; that linter's own tests show that it finds what breaks one."""
    linter = pathlib.Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "module, statement, expected",
    [
        ("tfaug.data.readers.acdc", "from .. import nifti", {"tfaug.data.nifti"}),
        ("tfaug.data.readers.acdc", "from ...types import Volume", {"tfaug.types"}),
        ("tfaug.data", "from .nifti import read", {"tfaug.data.nifti"}),
        ("tfaug.data.readers.acdc", "from tfaug.types import Volume, Z_DIM", {"tfaug.types"}),
        ("train", "from tfaug.commands import cli", {"tfaug.commands.cli"}),
        ("train", "import numpy as np, os.path", {"numpy", "os.path"}),
    ],
)
def test_imports_are_read_as_python_does(module, statement, expected):
    assert imports(module, ast.parse(statement)) == expected


def test_configs_import_only_each_other():
    for module in SOURCES:
        if module.split(".")[0] == "configs":
            assert first_party(IMPORTS[module]) <= {"tfaug.configs"}, module  # a link to `configs`


def test_only_compat_knows_which_tensorflow_it_is():
    packages = {"keras", "tf_keras", "tensorflow_addons"}
    importers = {m for m, found in IMPORTS.items() if packages & {name.split(".")[0] for name in found}}
    assert importers - {"tests.test_warp"} == {"tfaug.compat"}
    named = re.compile(r"\btf\.keras\.")
    assert not [module for module, path in SOURCES.items() if module != __name__ and named.search(path.read_text())]


@pytest.mark.parametrize("module", WORKER_MODULES)
def test_workers_need_no_tensorflow_even_later(module):
    reached, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            parents = {".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 1)}
            waiting += (IMPORTS.get(name, set()) | parents) & {*SOURCES, "tensorflow", "keras", "tf_keras"}
    assert not reached & {"tensorflow", "keras", "tf_keras"}


def test_importing_what_workers_import_loads_no_tensorflow():
    code = (
        "import importlib, sys\n"
        f"for name in {(*MAIN_PROGRAMS, *WORKER_MODULES)}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'tensorflow' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def dangers(tree):
    """Calls of a tree that could run code or a shell from what a user brings: "line: what"."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases.update({a.asname: a.name for a in node.names if a.asname})
        elif isinstance(node, ast.ImportFrom):
            aliases.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, *rest = ast.unparse(node.func).split(".")
            name = ".".join([aliases.get(first, first), *rest])
            keywords = {ast.unparse(keyword) for keyword in node.keywords}
            if name in FORBIDDEN_CALLS or "shell=True" in keywords:
                yield f"{node.lineno}: {name}"
            if "allow_pickle=True" in keywords and "save" not in name:
                yield f"{node.lineno}: {name}(allow_pickle=True)"


@pytest.mark.parametrize("module", SOURCES)
def test_s1_s2_s8_nothing_a_user_brings_is_run(module):
    assert not list(dangers(parse(SOURCES[module])))


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "import pickle as p\np.load(file)",
        "from pickle import loads\nloads(text)",
        "import yaml\nyaml.load(text)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "from os import system\nsystem(command)",
        "import tensorflow as tf\ntf.keras.models.load_model(path)",
        "from tfaug.compat import keras\nkeras.models.load_model(path)",
    ],
)
def test_a_dangerous_call_would_be_caught(source):
    assert list(dangers(ast.parse(source)))


def test_a_harmless_call_of_the_same_name_is_left_alone():
    assert not list(dangers(ast.parse("import numpy as np\nnp.load(path)\nmodel.eval()\njson.load(file)")))


def test_no_file_names_a_path_of_somebodys_machine():
    texts = [path for pattern in ("*.md", "*.toml", "*.txt", "docs/**/*.md", ".ci/*") for path in ROOT.glob(pattern)]
    for path in (*SOURCES.values(), *texts):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not MACHINE_PATH.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"

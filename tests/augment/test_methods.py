import subprocess
import sys

import pytest

from tfaug.augment import methods
from tfaug.augment.methods import METHODS, Method
from tfaug.engine.errors import UserError

OWN = """
from tfaug.augment.methods import Method

blur = Method(("affine",), (("deform", "own:Blur"),))
aff = Method(("affine",))
number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's module `own`, in the working directory."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own", None)


def test_a_table_has_the_named_rows_in_their_order_by_short_name(own):
    rows = methods.table(["aff_gd", "own:blur", "none"])
    assert list(rows) == ["aff_gd", "blur", "none"]
    assert rows["aff_gd"] == METHODS["aff_gd"]
    assert rows["blur"].generated == (("deform", "own:Blur"),)


@pytest.mark.parametrize(
    "names, words",
    [
        (["aff_mix"], ["aff_mixup", "module:name"]),
        (["own:blurr"], ["own", "blur"]),
        (["own:number"], ["own:number", "int", "Method"]),
        (["own:aff"], ["own:aff", "another row"]),
        (["aff", "aff"], ["aff", "once"]),
    ],
)
def test_a_table_refuses_what_is_no_method_or_ambiguous(own, names, words):
    with pytest.raises(UserError) as error:
        methods.table(names)
    assert str(error.value).startswith("methods: ")
    assert all(word in str(error.value) for word in words)


def test_generators_are_found_wherever_a_method_uses_them():
    assert METHODS["aff_gd_gi"].generators == ("deform", "intensity")
    assert METHODS["aff_gi_noreg"].generators == ("intensity_noreg",)
    assert METHODS["aff_mixup"].generators == ()
    assert Method(("intensity", "affine"), (("affine", "deform"),)).generators == ("deform", "intensity")


def test_transforms_are_all_that_a_method_applies_each_once():
    method = Method(("affine",), (("deform",), ("deform", "own:Blur")), mixup=True)
    assert method.transforms == ("affine", "deform", "own:Blur", "mixup")


@pytest.mark.parametrize("wrong", [{"first": "affine"}, {"generated": ("deform",)}, {"generated": "deform"}])
def test_a_recipe_is_a_tuple_of_names(wrong):
    with pytest.raises(TypeError, match="tuple"):
        Method(**wrong)


def test_methods_can_be_read_without_tensorflow():
    code = "import sys, tfaug.augment.methods; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

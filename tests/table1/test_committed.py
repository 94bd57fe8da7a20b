"""The committed grid: its document shows what its results give, and today's config can go on with it."""

import pathlib

import pytest

from configs import phantom
from tfaug.augment.methods import METHODS
from tfaug.table1 import paper, render, results
from tfaug.table1.table import compute, load

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "results"
FOLDER = DOCS / "phantom"


@pytest.fixture(scope="module")
def config():
    return results.read_config(FOLDER)


def test_the_document_shows_what_the_results_give(config):
    text = (DOCS / "table1-phantom.md").read_text(encoding="utf-8")
    for section in render.markdown(compute(load(FOLDER), config, METHODS)).split("\n\n")[1:]:
        assert section in text


def test_the_default_config_goes_on_with_the_results(config):
    assert results.decisive(phantom.get_config(), paper.STRUCTURES) == config


def test_results_come_from_commits():
    commits = {result.commit for result in results.load(FOLDER)}
    assert commits and not any(commit is None or commit.endswith("-dirty") for commit in commits)

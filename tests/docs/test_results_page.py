"""The page on result files names what a result file holds."""

import re

import h5py
import pytest

from mpicoded.data import naming
from mpicoded.data.datasets import linear_regression

from .pages import SITE

PAGE = (SITE / "results.md").read_text()
NAMES = set(re.findall(r"`([\w/]+)`", PAGE))
SCALES = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}  # HDF5's own, of axes


@pytest.fixture(scope="module")
def result(common_program):
    """Of a code that proves lies, so that nothing is left out but what only broken ranks have."""
    place = common_program.folder
    linear_regression(str(place / "data.h5"), subsets=6, features=4, samples_per_subset=1, seed=1)
    (place / "a.toml").write_text(
        'devices = 6\nbyzantine = 1\nrounds = 3\n[data]\npath = "data.h5"\n[allocation]\nname = "repetition"\n'
        '[encoder]\nname = "majority_vote"\n[attack]\nname = "sign_flip"\n[aggregator]\nname = "mean"\n'
    )
    ended = common_program("run", "a.toml", "-o", "a.h5")
    assert ended.code == 0, ended.err
    return place / "a.h5"


def test_every_dataset_and_attribute_has_a_row(result):
    missing = set()

    def look(path, item):
        name = path.rpartition("/")[2]
        known = path.startswith("timings/") or NAMES & {path, name, path.partition("/")[2]}
        missing.update([path] if isinstance(item, h5py.Dataset) and not known else [])
        missing.update(f"{path}: {key}" for key in item.attrs if key not in NAMES | SCALES)

    with h5py.File(result) as file:
        file.visititems(look)
        missing.update(key for key in file.attrs if key not in NAMES)
        assert "proven" in file["estimates"]
    assert not missing, f"docs/results.md has no word on {sorted(missing)}"


@pytest.mark.parametrize("column", naming.COLUMNS)
def test_a_column_of_the_history_has_its_unit(column):
    units, _ = naming.COLUMNS[column]
    assert re.search(rf"^\| .*`{column}`.* \| {units} \|", PAGE, re.M), f"docs/results.md: {column} in {units}"


def test_the_phases_of_a_round_are_on_the_page_that_is_named(result):
    said = (SITE / "concepts.md").read_text() + PAGE
    with h5py.File(result) as file:
        assert not [phase for phase in file["timings"] if not re.search(rf"(\| |`){phase}\b", said)]

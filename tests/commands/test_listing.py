"""``mpicoded list``: what there is, and the document that is made of it."""

import re
from pathlib import Path
from typing import ClassVar

import pytest

from mpicoded import plugins
from mpicoded.algorithms.component import Component, members
from mpicoded.cli import main
from mpicoded.commands.reference import words
from mpicoded.configs import FAMILIES
from mpicoded.experiment import Compute, Data, Experiment

ROOT = Path(__file__).parent.parent.parent
CLASSES = [cls for choice in FAMILIES.values() for cls in members(choice).values()]


def test_the_table_of_components_is_what_the_program_prints(capsys):
    assert main(["list", "--markdown"]) == 0
    message = "docs/components.md is not up to date: mpicoded list --markdown > docs/components.md"
    assert (ROOT / "docs" / "components.md").read_text() == capsys.readouterr().out, message


def test_the_reference_is_what_the_program_prints(capsys):
    assert main(["list", "--reference"]) == 0
    message = "docs/configuration.md is not up to date: mpicoded list --reference > docs/configuration.md"
    assert (ROOT / "docs" / "configuration.md").read_text() == capsys.readouterr().out, message


@pytest.mark.parametrize("cls", [Experiment, Data, Compute, *CLASSES], ids=lambda cls: cls.__name__)
def test_every_key_says_what_it_is_for(cls):
    tables = {*FAMILIES, "data", "compute"} if cls is Experiment else set()
    silent = set(cls.__struct_fields__) - tables - set(words(cls))
    assert not silent, f"{cls.__name__}: a comment at the end of the line, or a text below it: {silent}"


def test_words_stand_beside_a_key_below_it_or_at_the_base():
    class Base(Component):
        one: int = 1  # of the base

    class Other(Base):
        two: str = "# no comment"
        three: int = 3  # not this
        """Below,
        on two lines."""
        four: ClassVar[int] = 4  # no key

    assert words(Other) == {"one": "of the base", "three": "Below, on two lines"}


def test_every_component_has_one_row_of_five_columns(capsys, monkeypatch):
    monkeypatch.setattr(plugins, "found", lambda: pytest.fail("plug-ins are not in the document"))
    assert main(["list", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == len(CLASSES)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)
    assert sum(line.startswith("## ") for line in lines) == len(FAMILIES)


def test_the_list_says_what_papers_call_a_component(capsys):
    assert main(["list", "aggregator"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^  trimmed_mean .*\n( {26}.*\n)* {26}in papers: CWTM\n", said, re.M)


@pytest.mark.parametrize(
    ("acronym", "name"),
    [
        ("CWTM", "trimmed_mean"),
        ("CWMed", "coordinate_median"),
        ("NNM", "nearest_neighbor_mixing"),
        ("RFA", "geometric_median"),
        ("MDA", "minimum_diameter"),
        ("TGN", "norm_threshold"),
        ("CAF", "covariance_filtering"),
        ("CTMA", "ctma"),
        ("MeaMed", "mean_around_median"),
        ("ARC", "adaptive_clipping"),
        ("LAD", "cyclic"),
        ("CRA-DL", "balanced"),
        ("DRACO", "repetition"),
        ("ByzShield", "latin_square"),
        ("Aspis", "all_subsets"),
        ("FoE", "ipm"),
        ("ALIE", "alie"),
        ("QSGD", "qsgd"),
        ("EF21", "ef21"),
        ("VA", "mean"),
        ("RBA-DL", "partition"),
    ],
)
def test_acronyms_of_the_field(acronym, name):
    assert any(re.search(rf"\b{acronym}\b", cls.acronym) for cls in CLASSES if cls.name() == name)

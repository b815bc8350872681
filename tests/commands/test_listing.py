"""``mpicoded list``: what there is, and the document that is made of it."""

import re
from pathlib import Path

import pytest

from mpicoded import plugins
from mpicoded.algorithms.component import members
from mpicoded.cli import main
from mpicoded.configs import FAMILIES

ROOT = Path(__file__).parent.parent.parent
CLASSES = [cls for choice in FAMILIES.values() for cls in members(choice).values()]


def test_the_table_of_components_is_what_the_program_prints(capsys):
    assert main(["list", "--markdown"]) == 0
    message = "docs/components.md is not up to date: mpicoded list --markdown > docs/components.md"
    assert (ROOT / "docs" / "components.md").read_text() == capsys.readouterr().out, message


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

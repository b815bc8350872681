"""The report: complete, self-contained, harmless whatever is in the files, and good in a real browser."""

import base64
import contextlib
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpicoded import load_results
from mpicoded.cli import main
from mpicoded.data.compare import by_seed
from mpicoded.data.merged import load_all
from mpicoded.figures import page, table

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.toml"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "link", "input", "br", "path", "use", "rect"}


class Reader(HTMLParser):
    """Collects elements and texts, and sees that they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def report(made):
    """The page of all files, made once."""
    with contextlib.chdir(made):
        files = sorted(map(str, Path("sweep").iterdir()))
        assert main(["report", *files, "fixed.h5", "uncoded.h5", "--title", "A & B"]) == 0
        return Path("report.html").resolve()


def test_it_needs_nothing_else_and_names_nothing_twice(report):
    report = report.read_text()
    read = Reader(report)
    assert {"script", "img", "iframe", "object"}.isdisjoint(tag for tag, _ in read.elements)
    assert not re.findall(r"url\((?!#)|@import", report)
    for tag, attributes in read.elements:
        for key in ("href", "src", "xlink:href", "action"):
            assert re.match(r"#|data:", attributes.get(key) or "#"), (tag, attributes)
    names = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(names) == len(set(names))
    targets = set(re.findall(r'(?:href="|url\()#([\w-]+)', report))
    assert targets <= set(names)
    assert len(report) < 5e6


def test_it_has_what_is_asked_for(here, report, sweep):
    report = report.read_text()
    text = " ".join(Reader(report).texts)
    assert "A & B" in text
    assert "10 results, 6 experiments (seeds apart)" in text
    for part in ("Experiments", "Curves", "Seconds", "Bytes", "Suspects", "Warnings", "Versions, and how to repeat it"):
        assert part in text
    for path in [*sweep, "fixed.h5", "uncoded.h5"]:
        assert path in text
    assert f"numpy {np.__version__}" in text
    assert "allocation.redundancy" in text
    drawn = [one["aria-label"] for one in Reader(report).named("svg") if "viewbox" in one]
    for x in ("rounds done", "subset gradients computed", "bytes sent by all devices", "seconds in rounds"):
        assert f"suboptimality F(x) − F* over {x}, a curve for each experiment" in drawn
    score = load_results("fixed.h5").suspicion["score"]
    worst = int(np.argmax(score))
    assert f"{score[worst]:.2f} device {worst} (rank 0" in text


def test_its_commands_give_the_same_bits(here):
    assert main(["run", str(here / "fixed.toml"), "--quiet"]) == 2  # there is none
    assert main(["report", "fixed.h5", "-o", "one.html"]) == 0
    read = Reader(Path("one.html").read_text())
    ((config,), (name,)) = (
        [one[key] for one in read.named("a") if one.get("download")] for key in ("href", "download")
    )
    Path("again").mkdir()
    Path("again", name).write_bytes(base64.b64decode(config.removeprefix("data:text/plain;base64,")))
    commands = next(text for text in read.texts if text.startswith("mpicoded data"))
    assert commands.count("\n") == 1
    subprocess.run(["bash", "-ec", commands], cwd="again", check=True, capture_output=True)
    np.testing.assert_array_equal(load_results("again/fixed.h5").parameters, load_results("fixed.h5").parameters)


def test_nothing_in_a_file_becomes_part_of_the_page(here):
    shutil.copy("fixed.h5", "bad.h5", follow_symlinks=True)
    evil = '"><script>alert(1)</script><a href="https://example.org">&amp;'
    with h5py.File("bad.h5", "a") as file:
        file.attrs["mpi"] = file.attrs["data"] = evil + "; rm -rf $HOME `x`"
        file.attrs["hosts"] = [evil]
        file.attrs.create("warnings", [evil])
        file.attrs["versions"] = '{"' + evil.replace('"', "'") + '": "1"}'
        file.attrs["experiment"] = file.attrs["experiment"].replace('name = "cyclic"', f"name = '{evil}'")
        del file["suspicion/host"]
        file["suspicion"].create_dataset("host", data=[evil] * 100, dtype=h5py.string_dtype())
    assert main(["report", "bad.h5", "uncoded.h5", "-o", "bad.html"]) == 0
    read = Reader(Path("bad.html").read_text())
    assert not read.named("script")
    assert all((one.get("href") or "").startswith(("#", "data:")) for one in read.named("a"))
    assert sum(evil in text for text in read.texts) >= 3
    commands = next(text for text in read.texts if text.startswith("mpicoded data"))
    assert "'`x`'" in commands


def test_warnings_losses_and_runs_that_are_not_finished_are_told(here):
    (result,) = load_all(["fixed.h5"])
    lost = {"rank": np.array([1]), "host": ["n2"], "round": np.array([7])}
    bad = {"bad": np.array([0, 3]), "missing": np.array([1, 0]), "most_at_once": 2}
    warned = result._replace(
        warnings=["a line"], lost_ranks=lost, bad_records=bad, finished=False, estimates={"proven": np.array([0, 3])}
    )
    text = " ".join(Reader(page.render([warned, result._replace(path="other.h5")])).texts)
    for expected in (
        "(not finished)",
        "a line",
        "(1 of 2: fixed.h5)",
        "fixed.h5: 3 bad and 1 missing records, at most 2 at once",
        "fixed.h5: rank 1 (n2) died in round 7",
        "fixed.h5: at least 3 devices lied in a round",
    ):
        assert expected in text


def test_bytes_of_a_device_and_round_do_not_depend_on_the_order_of_seeds(here, sweep):
    results = by_seed(load_all(sweep))[0].results
    short = results[0]._replace(history={name: values[:2] for name, values in results[0].history.items()})
    for both in ([short, results[1]], [results[1], short]):
        (row,) = page._bytes(by_seed(both)[:1], ["one"])
        assert row[-1] == "800"
    made = table.make(by_seed([short, results[1]]))
    assert (made.settings[-1], made.rows[0][0][-1]) == ("rounds done", "10 to 30")


def test_imported_data_are_imported_again_by_the_same_words(here):
    Path("my data.csv").write_text("a,b,t $\n" + "".join(f"{i},{i % 3},{i % 7}\n" for i in range(50)))
    words = ["--subsets", "10", "--target", "t $", "--task", "regression"]
    assert main(["data", "import", "my data.csv", "-o", "data.h5", *words]) == 0
    config = ["--data.path", "data.h5", "--devices", "10", "--byzantine", "2", "--aggregator.byzantine", "2"]
    run = ["run", str(QUICKSTART), "--quiet", "-o", "./-table.h5", "--rounds", "5", "--allocation.redundancy", "2"]
    assert main([*run, *config]) == 0
    command = page._command(load_results("./-table.h5"))
    Path("data.h5").rename("first.h5")
    Path("table.toml").write_text(command["toml"])
    subprocess.run(["bash", "-ec", command["lines"]], check=True, capture_output=True)
    again = load_results(f"{command['stem']}.h5").parameters
    np.testing.assert_array_equal(again, load_results("./-table.h5").parameters)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nope.h5"], "result file nope.h5 does not exist"),
        (["fixed.h5", "-o", "r.pdf"], "report r.pdf: the ending must be .html"),
        (["fixed.h5", "-o", "nowhere/r.html"], "report nowhere/r.html cannot be written: No such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(here, capsys, words, expected):
    assert main(["report", *words]) == 2
    assert expected in capsys.readouterr().err


def test_without_what_it_needs_it_says_so(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["report", "fixed.h5"]) == 2
    assert capsys.readouterr().err == "mpicoded: error: a report needs Jinja2: pip install 'mpicoded[plots]'\n"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (375, 800)], ids=["desktop", "phone"])
def test_a_browser_opens_it_without_an_error_and_it_is_accessible(report, width, height):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": width, "height": height})
        requests, errors = [], []
        view.on("request", lambda request: requests.append(request.url))
        view.on("console", lambda message: errors.append(message.text))
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.goto(report.as_uri())
        for opened in view.locator("summary").all():
            opened.click()
        assert view.locator(".over-round").first.is_visible()
        view.locator("label", has_text="bytes sent by all devices").click()
        assert view.locator(".over-bytes_up").first.is_visible()
        assert not view.locator(".over-round").first.is_visible()
        assert view.evaluate("document.documentElement.scrollWidth") == width
        found = Axe().run(view).response
        browser.close()
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert errors == []
    assert [(one["id"], one["impact"]) for one in found["violations"]] == []
    assert len(found["passes"]) > 15

"""No link of README and docs leads nowhere, on a forge or in the site."""

import pytest

from .pages import PAGES, SITE, anchors, links, name

LINKS = [pytest.param(page, link, id=f"{name(page)}: {link}") for page in PAGES for link in dict.fromkeys(links(page))]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_a_link_leads_to_a_file_and_to_a_heading_in_it(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists(), f"{name(page)} links to {path}, which is not there"
    if anchor:
        assert anchor in anchors(target), f"{name(page)} links to {link}; there are: {sorted(anchors(target))}"
    if SITE in page.parents and SITE not in target.parents:
        assert target.is_file(), f"{name(page)} links to the folder {path}, but the site hands out files only"
        assert target.suffix != ".md", f"{name(page)} links to {path}, which is not in the site: say its name as code"


def test_links_and_anchors_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A *b*, `c`: d\n[x](y.md#z) ![p](q.png) [w](https://w.org) `[no](code)`\n"
        "```text\n# no heading\n[no](link)\n```\n## Twice\n## Twice\n"
    )
    assert links(page) == ["y.md#z", "q.png"]
    assert anchors(page) == {"a-b-c-d", "twice", "twice-1"}

"""The pages of the documentation, taken apart: blocks of code with their marks, links, headings."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(ROOT.glob("examples/**/*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
SITE = ROOT / "docs"
_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A fenced block; its mark is the HTML comment on the line before it, empty where there is none."""

    page: Path
    line: int
    language: str
    mark: str
    text: str

    @property
    def place(self) -> str:
        return f"{name(self.page)}:{self.line}"

    @property
    def file(self) -> str:
        """The file that it shows, where it says so."""
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else ""


def name(page: Path) -> str:
    """As a reader would say it."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """In their order."""
    text = page.read_text()
    found = []
    for one in _BLOCK.finditer(text):
        line = text.count("\n", 0, one.start("language")) + 1
        found.append(Block(page, line, one["language"], one["mark"] or "", one["text"]))
    return found


def prose(page: Path) -> str:
    """The page without its blocks, and without code within lines."""
    return re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", page.read_text()))


def links(page: Path) -> list[str]:
    """What its links and pictures lead to, other sites left out."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The anchors that a forge and MyST give its headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.*?) *$", _BLOCK.sub("", page.read_text()), re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found

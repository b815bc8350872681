"""Figures as part of a page: SVG without identifiers that two of them could share."""

import io
import re
from html import escape
from typing import Any

from mpicoded.figures import look


def inline(made: Any, name: str, description: str) -> str:
    """The figure as an ``svg`` element that is as wide as its place; ``name`` is another for each on a page."""
    out = io.StringIO()
    with look.style():
        import matplotlib

        # What is defined in an SVG is named by a hash with this salt.
        with matplotlib.rc_context({"svg.hashsalt": name}):
            made.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    # matplotlib's style sheet would be one for the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"(?:#|url\(#)([\w-]+)", text))
    text = re.sub(r' id="([\w-]+)"', lambda found: found[0] if found[1] in used else "", text)
    box = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg" {box[0] if box else ""}'
    label = f'style="stroke-linejoin: round" role="img" aria-label="{escape(description, quote=True)}"'
    return f"{head} {label}>{text[text.index('>') + 1 :]}"

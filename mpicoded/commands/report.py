"""``mpicoded report``: result files as one page."""

from collections.abc import Sequence
from pathlib import Path

from mpicoded.data.merged import load_all
from mpicoded.data.whole import write_whole
from mpicoded.errors import InputError, understood


def report(paths: Sequence[str], target: str, title: str | None) -> int:
    """Write the page. Raises InputError where there is nothing to show, or no way to."""
    from mpicoded.figures.page import render

    if Path(target).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"report {target}: the ending must be .html")
    results = load_all(paths)
    for result in results:
        if not len(result.history["round"]):
            raise InputError(f"result file {result.path} has no rows yet")
    with understood(f"no report of {', '.join(paths[:3])}{', …' if len(paths) > 3 else ''}"):
        page = render(results, title).encode()
    write_whole(target, page, "report")
    print(f"{target}: {len(results)} results, {len(page) / 1e6:.2g} MB")
    return 0

"""mpicoded, where rank 0 fails before it asks for memory, and then where rank 2 fails when it reads."""

import sys

from mpicoded.cli import main
from mpicoded.data import layout
from mpicoded.training import samples
from mpicoded.transport.launched import launched


def fail(*words: object) -> None:
    raise MemoryError("injected")


honest = samples.placement, layout.read_rows
for where, name, rank in ((samples, "placement", 0), (layout, "read_rows", 2)):
    if launched()[1] == rank:
        setattr(where, name, fail)
    code = main()
    samples.placement, layout.read_rows = honest
sys.exit(code)

"""Commands, one after another in the same ranks: starting these takes longer than what is tested of them.

Reads a list of command lines (JSON) from the file of the first argument; each rank writes what became of them to a file
of its own: the exit code, what it said on standard error, and the files that are there then.
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from mpicoded import cli
from mpicoded.transport.launched import launched

given = Path(sys.argv[1])
cli.time.sleep = lambda seconds: None  # launchers do not end anything here
ended = []
for words in json.loads(given.read_text()):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(words)
    ended.append([code, said.getvalue(), sorted(os.listdir())])
_, rank = launched()
given.with_suffix(f".{rank}").write_text(json.dumps(ended))

"""Commands of mpicoded, one after another in the same ranks: starting ranks takes longer than what is tested of them.

Each rank reads the command lines from ``commands.json`` in the folder of the first argument, and writes there what
became of them, as ``rank.json``: exit codes, what was said on standard error, and the files that were there then.
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from mpicoded import cli
from mpicoded.transport.launched import launched

place = Path(sys.argv[1])
cli.time.sleep = lambda seconds: None  # there is no launcher to wait for between two commands
ended = []
for words in json.loads((place / "commands.json").read_text()):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(words)
    ended.append([code, said.getvalue(), sorted(os.listdir())])
_, rank = launched()
(place / f"{rank}.json").write_text(json.dumps(ended))

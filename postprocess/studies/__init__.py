"""Studies: questions that are answered by many runs. Each is one command, ``python -m postprocess.studies NAME``."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # as the command line does: the same bits in any number of processes

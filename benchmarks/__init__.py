"""How fast the parts are: ``python -m benchmarks [NAME ...] [-o FILE.json]``.

A benchmark is a module here with ``measure(options)``, which returns its figures as they go into the JSON file, and
``show(figures)``, which turns them into a table. ``__main__`` lists them.
"""

import os

# Before anything imports NumPy, whose BLAS reads it then: figures are those of one core unless the user says otherwise.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

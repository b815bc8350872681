"""Run a study by its name, from the project's folder; without a name, list them all.

python -m postprocess.studies NAME [FOLDER] [--seeds N] [--jobs J] [--picture FILE] [--check [--sample K]]
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from postprocess.studies import study

FRAME = ("__init__", "__main__", "drawing", "runs", "study", "tables", "worst_cases")
NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in FRAME)


def main(words: Sequence[str]) -> int:
    """Hand the other words to the study that is named."""
    if not words:
        print("python -m postprocess.studies NAME …: runs what is missing and prints tables (times on two cores)\n")
        for name in NAMES:
            module = _module(name)
            time = module.STUDY.time if hasattr(module, "STUDY") else module.TIME
            print(f"{name:18} {(module.__doc__ or '').splitlines()[0]} ({time})")
        return 0
    name, *others = words
    if name not in NAMES:
        print(f"studies: error: {name} is no study; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    module = _module(name)
    return study.main(name, module.STUDY, others) if hasattr(module, "STUDY") else int(module.main(others))


def _module(name: str) -> ModuleType:
    return import_module(f"postprocess.studies.{name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

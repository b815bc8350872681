"""Run a study by its name: ``python -m postprocess.studies NAME …``, from the project's folder."""

import sys
from importlib import import_module
from pathlib import Path

NOT_STUDIES = ("__init__", "__main__", "runs", "worst_cases")
NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_STUDIES)


def main() -> int:
    """Hand the other words to the study that is named."""
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        print(f"usage: python -m postprocess.studies NAME …, NAME one of: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    name = sys.argv.pop(1)
    return import_module(f"postprocess.studies.{name}").main() or 0


if __name__ == "__main__":
    sys.exit(main())

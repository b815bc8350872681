"""The command line of the benchmarks."""

import argparse
import json
from pathlib import Path

from benchmarks import compression, gpu, rounds, rules, sharding, starting, streaming
from benchmarks.report import surroundings

BENCHMARKS = {
    "compression": compression,
    "gpu": gpu,
    "rounds": rounds,
    "rules": rules,
    "sharding": sharding,
    "starting": starting,
    "streaming": streaming,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure how fast the parts are.")
    names = ", ".join(BENCHMARKS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which benchmarks (all): {names}")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="write the figures to this file")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64", help="what is computed in")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, rougher figures")
    parser.add_argument("--small", action="store_true", help="small models too, where the cost of a call shows")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))} (there are: {names})")
    report = surroundings(options)
    for name in options.names or BENCHMARKS:
        figures = BENCHMARKS[name].measure(options)
        print(BENCHMARKS[name].show(figures), end="\n\n", flush=True)
        report["benchmarks"][name] = figures
        if options.output:  # after each one: a long run that is interrupted keeps what it has
            options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

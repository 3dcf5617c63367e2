"""Run the benchmarks and print their tables.

`python -m bench [affinity | mast | aot | mivos | interactive | rgmp | detection | track | growth | training | budget] ...`
"""

import platform
import sys

import psutil
import torch

from bench import affinity, aot, budget, detection, growth, interactive, mast, mivos, rgmp, track, training

BENCHMARKS = {
    "affinity": affinity.main,
    "mast": mast.main,
    "aot": aot.main,
    "mivos": mivos.main,
    "interactive": interactive.main,
    "rgmp": rgmp.main,
    "detection": detection.main,
    "track": track.main,
    "growth": growth.main,
    "training": training.main,
    "budget": budget.main,
}
LONG = {"budget"}
"""Only when named: they take many minutes."""


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; the exit code."""
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    memory = psutil.virtual_memory().total / 2**30
    print(f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GB; torch {torch.__version__}")
    print(f"load before the start: {psutil.getloadavg()[0]:.1f}\n")
    for name in names or [name for name in BENCHMARKS if name not in LONG]:
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

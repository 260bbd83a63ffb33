"""The command: `python -m tests.api.fuzz --cases 5000 --database sqlite`; `make fuzz` runs it on both databases."""

import argparse
import sys

from tests.api.fuzz.run import fuzz


def main() -> int:
    """Print the log and the figures; return 1 after a failure of any kind."""
    parser = argparse.ArgumentParser(prog="python -m tests.api.fuzz", description="Fuzz the API with Schemathesis.")
    parser.add_argument("--cases", type=int, default=5000, help="at least this many requests")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=20, help="of each operation, in each phase that draws them")
    options = parser.parse_args()
    outcome = fuzz(options.database, options.cases, options.seed, options.examples)
    print(outcome.log)  # noqa: T201
    print(f"{options.database}: {outcome.cases} cases, {outcome.failures} failures")  # noqa: T201
    return int(outcome.failures > 0)


if __name__ == "__main__":
    sys.exit(main())

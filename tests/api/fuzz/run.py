"""Runs of Schemathesis with all checks and phases, until a number of cases is reached."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.api.fuzz.target import serving_target

ROOT = Path(__file__).parents[3]
CONFIG = Path(__file__).parent / "schemathesis.toml"
PHASES = ("examples", "coverage", "fuzzing", "stateful")


@dataclass(frozen=True)
class Outcome:
    """Cases that were sent, failures of any kind, and the log of the runs."""

    cases: int
    failures: int
    log: str


def fuzz(database: str, cases: int, seed: int = 1, examples: int = 20, *arguments: str) -> Outcome:
    """Send at least that number of cases to an API on `database`, sqlite or postgresql.

    examples: of each operation in the phases that draw at random; runs are repeated with the next seed. arguments: of
    `schemathesis run`, such as a filter of operations.
    """
    sent, failures, logs = 0, 0, []
    with tempfile.TemporaryDirectory() as folder, serving_target(database, Path(folder)) as (live, existing):
        while sent < cases:
            report = Path(folder) / f"report-{seed}.json"
            command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)]
            command += ["run", f"{live.url}/openapi.json", "--header", f"Authorization: Bearer {live.key}"]
            command += ["--checks", "all", "--continue-on-failure", "--no-color", "--seed", str(seed)]
            command += ["--max-examples", str(examples), "--report", "json", "--report-json-path", str(report)]
            environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.api.fuzz.hooks", "PYTHONPATH": str(ROOT)}
            environment["FUZZ_EXISTING"] = json.dumps(existing.parameters)
            done = subprocess.run(
                [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            logs.append(done.stdout + done.stderr)
            if not report.exists():
                raise RuntimeError(logs[-1])
            found = json.loads(report.read_text())
            sent += found["test_cases"]["generated"]
            failures += found["test_cases"]["unique_failures"] + len(found["errors"])
            failures += done.returncode not in (0, 1) or not found["complete"]
            seed += 1
        answer = live.client.get("/jobs")
        assert answer.status_code == 200, f"the key or the API did not survive: {answer.text}\n{logs[-1]}"
    return Outcome(sent, failures, "\n".join(logs))

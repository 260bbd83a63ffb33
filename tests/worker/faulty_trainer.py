"""A trainer with a fault of each kind: `python faulty_trainer.py MODE CONFIG.json --data DIR --out DIR …`."""

import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from ssl_core import events as ev


def main() -> None:
    mode, out = sys.argv[1], Path(sys.argv[sys.argv.index("--out") + 1])
    (out / "pid").write_text(str(os.getpid()))
    MODES[mode](out)


def write(*events: ev.Event) -> None:
    for event in events:
        os.write(1, ev.to_line(event).encode())


def metric(step: int, value: float = 0.5) -> ev.Metrics:
    return ev.Metrics(step, step / 10, 1000.0, {"train/loss": value})


def exits_without_result(out: Path) -> None:
    write(metric(1))


def exits_with_traceback(out: Path) -> None:
    sys.stderr.write("Traceback: somewhere\nRuntimeError: out of luck\n")
    sys.exit(3)


def logs_and_raises(out: Path) -> None:
    write(ev.Log("warning", "The loss is high.", "high"))
    sys.stderr.write("careful\n")
    try:
        raise RuntimeError("out of luck")
    except RuntimeError:
        traceback.print_exc()
    sys.stderr.write("the last words")
    write(ev.Failed("crashed", "It broke."))


def kills_itself(out: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def diverges(out: Path) -> None:
    write(ev.Failed("diverged", "The loss is not a number.", data={"step": 7}))
    sys.exit(1)


def fails_with_retry(out: Path) -> None:
    write(ev.Failed("device_lost", "The device went away.", retry=True))
    sys.exit(70)


def fails_with_full_storage(out: Path) -> None:
    write(ev.Failed("storage_full", "The storage is full.", retry=True))
    sys.exit(70)


def writes_garbage(out: Path) -> None:
    os.write(1, b"hello\n\xff\xfe\n[1]\n{}\n" + b"[" * 100_000 + b"\n")
    os.write(1, b"x" * (5 * 2**20) + b"\n")
    os.write(1, b"more\n" * 100)
    write(metric(1), ev.Result({"after": "garbage"}))


def writes_bad_log(out: Path) -> None:
    write(*(metric(step) for step in range(1, 20)), ev.Log("info", 7), metric(20), ev.Result({}))  # type: ignore[arg-type]


def writes_bad_metrics(out: Path) -> None:
    write(metric(1), ev.Metrics("one", 0.1, 1000.0, {"train/loss": 1.0}), ev.Result({}))  # type: ignore[arg-type]


def writes_bad_model(out: Path) -> None:
    write(ev.Model("../../elsewhere", "ab" * 32, 1, 4, {}), ev.Result({}))


def hangs_after_result(out: Path) -> None:
    write(ev.Result({"done": True}))
    time.sleep(1000)


def closes_stdout(out: Path) -> None:
    os.close(1)
    time.sleep(1000)


def leaves_child(out: Path) -> None:
    child = subprocess.Popen(["sleep", "1000"])  # inherits both pipes
    (out / "child").write_text(str(child.pid))
    write(ev.Result({}))


def leaves_detached_child(out: Path) -> None:
    child = subprocess.Popen(["sleep", "5"], start_new_session=True)  # outside of the process group
    (out / "child").write_text(str(child.pid))
    write(ev.Result({}))


def ignores_sigterm(out: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    write(metric(1))
    time.sleep(1000)


def sleeps(out: Path) -> None:
    write(metric(1))
    time.sleep(1000)


def writes_steadily(out: Path) -> None:
    for step in range(1, 100_000):
        write(metric(step))
        time.sleep(0.01)


def writes_many_events(out: Path) -> None:
    for step in range(1, 30_001):
        write(metric(step))
    write(ev.Result({"steps": 30_000}))


MODES = {name: value for name, value in globals().items() if getattr(value, "__code__", None) and name != "main"}

if __name__ == "__main__":
    main()

"""The injector: works through a seeded plan of faults, several at a time, and records what each has done."""

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from tests.faults.nemesis.experiment import Experiment
from tests.faults.nemesis.faults import KINDS
from tests.faults.nemesis.faults.base import Fault

MOST_AT_A_TIME = 3
MAX_WAIT_SECONDS = 40.0  # for a precondition
TRIES = 4
_TICK_SECONDS = 0.05


@dataclass
class Record:
    """A planned fault, for the report. Times are seconds since the start."""

    number: int
    kind: str
    planned_at: float
    target: str = ""
    injected_at: float | None = None
    effect: str | None = None
    seen_at: float | None = None
    healed_at: float | None = None
    tries: int = 0

    @property
    def happened(self) -> bool:
        """Whether its effect and its healing were observed."""
        return self.effect is not None and self.healed_at is not None


def plan_faults(
    faults: int, rng: random.Random, available: Collection[str], without: Collection[str] = ()
) -> list[str]:
    """Return kinds of fault in random order by weight, each available kind at least once if there are so many.

    available: the needs that are met (`Kind.needs`); without: kinds that are left out.
    """
    kinds = [kind for kind, entry in KINDS.items() if not entry.needs or entry.needs in available]
    kinds = [kind for kind in kinds if kind not in without]
    plan = kinds + rng.choices(kinds, [KINDS[kind].weight for kind in kinds], k=max(0, faults - len(kinds)))
    rng.shuffle(plan)
    return plan[:faults]


@dataclass
class _Running:
    """A fault that was injected and is not healed; `healing_since` once `heal` was called."""

    record: Record
    fault: Fault
    healing_since: float | None = None


@dataclass
class Injector:
    """Injects the faults of a plan into an experiment; `records` has one entry for each."""

    experiment: Experiment
    rng: random.Random
    gap_seconds: float = 0.5
    on_end: Callable[[Record], object] = lambda record: None
    records: list[Record] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _running: list[_Running] = field(default_factory=list)
    _again: list[Record] = field(default_factory=list)

    def inject_all(self, kinds: Sequence[str]) -> None:
        """Inject the faults in order, then once more those without an effect; return when all are healed."""
        self.records = [Record(number, kind, 0.0) for number, kind in enumerate(kinds)]
        for record in self.records:
            requests = [later.kind for later in self.records[record.number :]].count("kill: api in a POST")
            self.experiment.reserved_jobs = min(2 * requests, len(self.experiment.kinds) - 1)
            self._wait(self.rng.uniform(0, 2 * self.gap_seconds), record.number / len(kinds))
            record.planned_at = self.elapsed()
            self._inject(record, record.number / len(kinds))
        while self._running or self._again:
            self.tick(0.99)
            if self._again:
                self._inject(self._again.pop(0), 0.99)

    @property
    def missed(self) -> list[str]:
        """The faults that did not happen."""
        return [f"fault {record.number}, {record.kind}" for record in self.records if not record.happened]

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def tick(self, share: float) -> None:
        """Follow the running faults and keep the fleet busy; `share` of the plan is done."""
        self.experiment.look()
        self.experiment.is_holding = any(each.fault.holds_jobs and each.healing_since is None for each in self._running)
        self.experiment.keep_busy(share)
        for running in list(self._running):
            self._follow(running)
        time.sleep(_TICK_SECONDS)

    def close(self) -> None:
        """Heal what is not healed."""
        for running in self._running:
            running.fault.heal()

    def _wait(self, seconds: float, share: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.tick(share)

    def _inject(self, record: Record, share: float) -> None:
        """Try until its precondition holds, for at most MAX_WAIT_SECONDS."""
        until = time.monotonic() + MAX_WAIT_SECONDS
        while time.monotonic() < until:
            self.tick(share)
            if len(self._running) < MOST_AT_A_TIME and self._try(record):
                return

    def _try(self, record: Record) -> bool:
        fault = KINDS[record.kind].build(self.experiment, self.rng)
        fault.started = time.monotonic()
        injected_at = self.elapsed()
        if not fault.inject():
            fault.release()
            return False
        record.injected_at, record.target, record.tries = injected_at, fault.target, record.tries + 1
        record.effect = record.seen_at = record.healed_at = None
        self._running.append(_Running(record, fault))
        return True

    def _follow(self, running: _Running) -> None:
        record, fault = running.record, running.fault
        if running.healing_since is None:
            if record.effect is None and (effect := fault.effect()) is not None:
                record.effect, record.seen_at = effect, self.elapsed()
            if record.effect is None and fault.elapsed() < fault.effect_seconds and not fault.is_void():
                return
            if record.effect is not None and not fault.is_due():
                return
            fault.heal()
            running.healing_since = time.monotonic()
        if fault.is_healed():
            record.healed_at = self.elapsed()
        elif time.monotonic() < running.healing_since + fault.heal_seconds:
            return
        fault.release()
        self._running.remove(running)
        self.on_end(record)
        if record.effect is None and record.tries < TRIES:
            self._again.append(record)

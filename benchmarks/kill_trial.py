"""One cell of `kill_and_resume.py`: its runs, what disturbs them, and what became of them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kill_runs import Study, Way, progress, result

LONGEST = 2  # times the timeout until the processes left by a killed one must have ended


@dataclass
class Tally:
    """What happened in a cell."""

    kills: Counter[str] = field(default_factory=Counter)
    stops: int = 0  # at a random time, that left a checkpoint
    every: int = 0  # before every batch
    slowest_stop: float = 0.0
    slowest_end: float = 0.0  # of processes that lost another one
    slowest_worker: float = 0.0  # of workers that lost their parent
    compared: int = 0
    different: list[str] = field(default_factory=list)


class Trial:
    """Runs of one cell, one after another."""

    def __init__(self, study: Study, chance: random.Random):
        self.study, self.chance, self.tally = study, chance, Tally()
        self._longest = LONGEST * study.timeout
        self._groups: set[int] = set()
        self._finish(study.folder / "undisturbed", study.cell.ways[0])
        self.moments, self.questions = study.counted()
        self._left = result if study.cell.exact else progress
        self.expected = self._left(study.folder / "undisturbed")
        begun = time.monotonic()
        self._finish(study.folder / "run-1", study.cell.ways[0])
        self.seconds = time.monotonic() - begun
        self._compare(study.folder / "run-1")

    def stop_everywhere(self) -> None:
        """SIGTERM before batch 1, 2, ... of the run, each time in a new one that goes on afterwards."""
        ways = self.study.cell.ways
        for number in range(1, self.questions + 1):
            run = self.study.folder / f"stopped-{number}"
            status = self._ended(self._start(run, ways[number % len(ways)], stop_at=number))
            # another way may have fewer batches, and a decoupled run does not ask in its test
            self._require(status == 143 or len(ways) > 1 or not self.study.cell.exact, status)
            self.tally.every += status == 143
            self._finish(run, ways[(number + 1) % len(ways)])
            self._compare(run)

    def kill(self, kills: int) -> None:
        run, number = self.study.folder / "killed-1", 1
        while self.tally.kills.total() < kills:
            if self._disturb(run):
                self._compare(run)
                number += 1
                run = self.study.folder / f"killed-{number}"
        self._finish(run, self._way())
        self._compare(run)

    def _way(self) -> Way:
        return self.chance.choice(self.study.cell.ways)

    def _disturb(self, run: Path) -> bool:
        """One start that is killed or stopped, unless it comes to its end first; whether it did."""
        way, one, chance = self._way(), None, self.chance
        if chance.random() < 0.25:
            return self._stop(self._start(run, way))
        if chance.random() < 0.5:
            ranks = self._start(run, way)
            one = chance.choice(ranks) if len(ranks) > 1 and chance.random() < 0.5 else None
            time.sleep(chance.uniform(0, 1.2 * self.seconds))
            for rank in ranks if one is None else [one]:
                os.kill(rank, signal.SIGKILL)
            where = "at a random time" + (", one of several processes" if one else "")
        else:
            where = chance.randrange(way.processes)
            ranks = self._start(run, way, kill_at=chance.randint(1, self.moments), where=where)
            one = ranks[where]
            where = ""
        fate = self._fate(ranks)
        if fate == "killed":
            where = where or (self.study.folder / "killed-at.txt").read_text()
            self.tally.kills[where] += 1
        return fate == "end"

    def _stop(self, ranks: list[int]) -> bool:
        time.sleep(self.chance.uniform(0, self.seconds))
        begun, everybody = time.monotonic(), self.chance.random() < 0.5
        os.killpg(ranks[0], signal.SIGTERM) if everybody else os.kill(ranks[0], signal.SIGTERM)
        found = self._statuses(ranks, stopping=True)
        took = time.monotonic() - begun
        if found == {143}:
            self.tally.slowest_stop = max(self.tally.slowest_stop, took)
        elif 143 in found:  # one ended before it listened, and was waited for
            self.tally.slowest_end = max(self.tally.slowest_end, took)
        self.tally.stops += 143 in found
        return found == {0}

    def _start(self, run: Path, way: Way, **what: object) -> list[int]:
        ranks = self.study.start(run, way, **what)
        self._groups.add(ranks[0])
        return ranks

    def _fate(self, ranks: list[int]) -> str:
        """What became of a start, one process or all of which may have been killed."""
        found, first = {}, 0.0
        begun = time.monotonic()
        while len(found) < len(ranks):
            for rank in [r for r in ranks if r not in found]:
                ended, status = os.waitpid(rank, os.WNOHANG)
                if ended:
                    found[rank] = os.waitstatus_to_exitcode(status)
                    if found[rank] == -signal.SIGKILL and not first:
                        first = time.monotonic()
            self._require(time.monotonic() - (first or begun) < self._longest, "a process hangs")
            time.sleep(0.005)
        statuses = set(found.values())
        alone = statuses & {1, 2}  # 2: it has waited for one that was killed before they had met
        self._require(statuses <= {0, 1, 2, -signal.SIGKILL} and (first or not alone), statuses)
        if not first:
            return "end"
        if alone:
            self.tally.slowest_end = max(self.tally.slowest_end, time.monotonic() - first)
        return "killed"

    def _ended(self, ranks: list[int]) -> int:
        """The status of all processes."""
        return max(self._statuses(ranks))

    def _statuses(self, ranks: list[int], *, stopping: bool = False) -> set[int]:
        """Of a stop: those of processes that had begun to listen, and of others."""
        found = {os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks}
        early = {1, 2, -signal.SIGTERM} if stopping else set()  # before it listens, there is nothing to save
        if stopping and {0, 143} <= found:
            return {0}  # it came when all was done, and one had ended
        self._require(len(found - early) <= 1 and found <= {0, 143, *early}, found)
        return found

    def _finish(self, run: Path, way: Way) -> None:
        self._require(self._ended(self._start(run, way)) == 0)

    def end(self) -> None:
        """Nothing that was started runs on, workers of killed processes among it."""
        begun = time.monotonic()
        for group in self._groups:
            while is_alive(group):
                self._require(time.monotonic() - begun < self._longest, "a worker runs on")
                time.sleep(0.1)
        self.tally.slowest_worker = time.monotonic() - begun

    def _compare(self, run: Path) -> None:
        found = self._left(run)
        self.tally.compared += 1
        names = sorted({*found, *self.expected})
        self.tally.different += [
            f"{self.study.cell.name}, {run.name}: {name}"
            for name in names
            if found.get(name) != self.expected.get(name)
        ]

    def _require(self, sound: object, why: object = "status") -> None:
        if not sound:
            text = f"{self.study.cell}: {why}:\n{self.study.output.read_text()[-4000:]}"
            print(text, flush=True)
            raise SystemExit(text)


def is_alive(group: int) -> bool:
    """Whether a process of a group runs; one that has ended and that nobody has waited for does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(") ")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False

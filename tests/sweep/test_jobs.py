import os
import sys

import pytest

from infopro.errors import BadConfiguration
from infopro.sweep import Job, Slot, free_slots, run_jobs
from infopro.sweep import jobs as jobs_file

PLACES = [Slot(device="cpu", threads=1), Slot(device="cpu", threads=3)]
# stands in for `python -m infopro`: writes a line, then does as its first argument says
STAND_IN = """
import os, signal, sys, time
print("started", sys.argv[1:], os.environ["OMP_NUM_THREADS"], flush=True)
if sys.argv[1] == "stopped":
    signal.signal(signal.SIGTERM, lambda *_: (print("checkpoint", flush=True), sys.exit(143)))
    print("ready", flush=True)
    time.sleep(60)
sys.exit(int(sys.argv[2]) if sys.argv[1] == "exit" else 0)
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path, monkeypatch):
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    monkeypatch.setattr(jobs_file, "PROGRAM", (sys.executable, str(program)))
    monkeypatch.setattr(jobs_file, "_LOOK_SECONDS", 0.01)


def job(tmp_path, name, *arguments, after=None):
    return Job(name=name, arguments=arguments, output=tmp_path / "output" / f"{name}.txt", after=after)


def test_every_job_runs_once_on_the_device_and_threads_of_its_place(tmp_path):
    wanted = [job(tmp_path, str(number), "exit", "0") for number in range(5)]
    told = []
    ended = run_jobs(wanted, PLACES, on_end=lambda job, status, seconds: told.append(job.name))
    assert ended == dict.fromkeys("01234", 0) and sorted(told) == list("01234")
    said = [(tmp_path / "output" / f"{number}.txt").read_text() for number in range(5)]
    assert all("started ['exit', '0', '--device=cpu']" in text for text in said)
    assert {text.split()[-1] for text in said} == {"1", "3"}


def test_no_more_run_than_there_are_places(tmp_path):
    most = []
    wanted = [job(tmp_path, str(number), "exit", "0") for number in range(4)]
    run_jobs(wanted, PLACES[:1], on_look=lambda running: most.append(len(running)))
    assert max(most) == 1


def test_a_failure_stops_only_what_builds_on_it(tmp_path):
    ended = run_jobs(
        [
            job(tmp_path, "bad", "exit", "2"),
            job(tmp_path, "good", "exit", "0"),
            job(tmp_path, "after bad", "exit", "0", after="bad"),
            job(tmp_path, "after good", "exit", "0", after="good"),
            job(tmp_path, "after what was done earlier", "exit", "0", after="another day's"),
        ],
        PLACES,
    )
    assert ended == {"bad": 2, "good": 0, "after good": 0, "after what was done earlier": 0}


def test_asked_to_stop_jobs_leave_their_checkpoints_and_none_starts(tmp_path):
    output = tmp_path / "output" / "long.txt"
    wanted = [job(tmp_path, "long", "stopped"), job(tmp_path, "next", "exit", "0")]
    ended = run_jobs(wanted, PLACES[:1], stop=lambda: output.is_file() and "ready" in output.read_text())
    assert ended == {"long": 143}
    assert "checkpoint" in output.read_text()


def test_an_error_leaves_no_job_behind(tmp_path):
    pids = []

    def look(running):
        text = (tmp_path / "output" / "long.txt").read_text()
        if "ready" in text:
            raise RuntimeError("the watcher failed")

    real = jobs_file.subprocess.Popen

    def recorded(*arguments, **options):
        process = real(*arguments, **options)
        pids.append(process.pid)
        return process

    jobs_file.subprocess.Popen = recorded
    try:
        with pytest.raises(RuntimeError):
            run_jobs([job(tmp_path, "long", "stopped")], PLACES, on_look=look)
    finally:
        jobs_file.subprocess.Popen = real
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_places():
    cores = jobs_file.available_cores()
    assert len(free_slots(devices=["cpu"], wanted=1000)) == cores
    assert free_slots(devices=["cpu"], jobs=1, wanted=9) == [Slot(device="cpu", threads=cores)]
    assert len(free_slots(devices=["cpu"], wanted=1)) == 1, "no more than are wanted"
    several = free_slots(devices=["cuda:0", "cuda:1"], jobs=3, wanted=9)
    assert [slot.device for slot in several] == ["cuda:0", "cuda:1", "cuda:0"]
    with pytest.raises(BadConfiguration, match="too few jobs"):
        free_slots(jobs=0, wanted=1)

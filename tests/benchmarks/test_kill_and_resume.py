"""Runs that are killed at random times, also while they write a checkpoint, lose nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_and_resume.py"
RUNS = 6  # a pipeline of 2 or one process, by turns: each goes on with what the other has left


def test_four_kills_change_no_bit():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills=4", f"--cells={RUNS}", "--random-only", "--timeout=15"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"SIGKILL in all \| 4 \|", done.stdout)
    compared = re.search(r"runs compared \| (\d+) \|", done.stdout)
    assert compared and int(compared[1]) >= 2

"""A run that is killed at random times, also while it writes a checkpoint, loses nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_and_resume.py"


def test_four_kills_change_no_bit():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills=4", "--epochs=2"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"SIGKILL in all \| 4 \|", done.stdout)
    compared = re.search(r"each compared with an undisturbed one \| (\d+) \|", done.stdout)
    assert compared and int(compared[1]) >= 2

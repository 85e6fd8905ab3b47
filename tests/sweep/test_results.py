import csv
import io
import json

import pytest
from rich.console import Console

from infopro.sweep import plan_cells
from infopro.sweep.progress import last_words
from infopro.sweep.results import is_finished, mean_and_deviation, read_results, summary_table, write_results

RECORD = {
    "learning_rate": 0.1, "losses": [{"total": 1.0}], "train_error": 1.0, "test_loss": 1.0,
    "best_test_error": 5.0, "seconds": 2.0, "images_per_second": 1.0,
}  # fmt: skip


def leave_run(folder, errors, *, checkpoint=True):
    """What a training leaves: one log line an epoch."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    lines = [json.dumps({**RECORD, "epoch": n, "test_error": e}) for n, e in enumerate(errors, start=1)]
    (folder / "log.jsonl").write_text("".join(line + "\n" for line in lines))
    if checkpoint:
        published = folder / "checkpoints" / f"epoch-{len(errors):06}"
        published.mkdir()
        (published / "state.json").write_text("{}")


@pytest.fixture
def cells():
    return plan_cells(
        "digits-demo", methods=["greedy"], num_modules=[4], seeds=[0, 1], overrides={"epochs": 2}
    )


def test_unfinished_runs_do_not_count(cells, tmp_path):
    for cell, errors in zip(cells, ([50, 10], [60, 20], [40], [70, 30]), strict=True):
        leave_run(tmp_path / cell.name, errors)
    results = read_results(cells, tmp_path)
    assert [(r.cell.name, r.test_error) for r in results] == [
        ("end-to-end-seed0", 10), ("k4-greedy-seed0", 20), ("k4-greedy-seed1", 30)
    ]  # fmt: skip
    assert results[0].seconds == 4.0
    assert not is_finished(tmp_path / "nowhere", epochs=2)


def test_a_log_without_its_checkpoint_is_not_finished(tmp_path):
    leave_run(tmp_path / "run", [50, 10], checkpoint=False)
    assert not is_finished(tmp_path / "run", epochs=2)


def test_table_and_csv_hold_the_same_numbers(cells, tmp_path):
    for cell, error in zip(cells, (10.0, 20.0, 12.0, 23.0), strict=True):
        leave_run(tmp_path / cell.name, [90.0, error])
    results = read_results(cells, tmp_path)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(summary_table(results))
    printed = console.export_text()
    assert "11.00 ± 1.41 (n = 2)" in printed and "21.50 ± 2.12 (n = 2)" in printed
    written = write_results(results, tmp_path / "results.csv")
    with written.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["test_error_percent"]) for row in rows] == [10.0, 20.0, 12.0, 23.0]
    assert [row["seed"] for row in rows] == ["0", "0", "1", "1"]


def test_mean_and_deviation():
    assert mean_and_deviation([3.0]) == "3.00 (n = 1)"
    assert mean_and_deviation([]) == "–"
    assert mean_and_deviation([3.0, float("nan")]) == "diverged (n = 2)"


def test_last_words_are_the_result_or_the_error(tmp_path):
    output = tmp_path / "output.txt"
    output.write_text("epoch 1\ntest error 3.00 %\nwrote runs/x/\n\n")
    assert last_words(output) == "test error 3.00 %"
    output.write_text("")
    assert last_words(output) == "it printed nothing"


def test_of_masks_the_table_is_of_mean_intersection_over_union(cells, tmp_path):
    for cell in cells:
        leave_run(tmp_path / cell.name, [90.0, 70.0])
        log = tmp_path / cell.name / "log.jsonl"
        lines = [{**json.loads(line), "extra": {"mean_iou": 100.0}} for line in log.read_text().splitlines()]
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(summary_table(read_results(cells, tmp_path)))
    printed = console.export_text()
    assert "test mIoU (%)" in printed and "30.00 ± 0.00 (n = 2)" in printed and "70.00" not in printed

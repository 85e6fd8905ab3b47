"""The page of the published tables: the committed page is that of the committed lines, cell for cell."""

import sys
from pathlib import Path

import pytest

from infopro import recipes

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "gpu"))

import page as gpu_page
from gpu_jobs import Job, append, read
from gpu_priorities import GROUPS, measurements, priorities
from gpu_published import CHECKPOINTED_GB, TIMES
from gpu_tables import error_table, measured_table, speed_table

CELL = "cifar10-resnet32-k16-infopro-contrast"  # 12.75 ± 0.11


def trained(recipe, seed, test_error, **options):
    """A line as a finished run leaves it."""
    return {
        "kind": "train",
        "recipe": recipe,
        "seed": seed,
        "precision": "bfloat16",
        "execution": "eager",
        "changed": {},
        "side_by_side": 4,
        "hardware": "a card",
        "versions": {"torch": "2.11.0"},
        "commit": "0123456789abcdef",
        "test_error": test_error,
        "best_test_error": test_error - 0.25,
        "seconds": 100.0 + seed,
        **options,
    }


def measured(job, peak, seconds, planned):
    values = {"peak_bytes": peak, "step_seconds": seconds, "planned_bytes": planned}
    row = trained(job.recipe, 0, 0.0, kind="measure", precision=job.precision, changed=dict(job.changed))
    return {**row, **values}


def line(text, *, starts):
    (found,) = [each for each in text.splitlines() if each.startswith(starts)]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_committed_page_is_made_of_the_committed_lines():
    assert gpu_page.PAGE.read_text() == gpu_page.page(read(gpu_page.RESULTS))


def test_every_published_cell_is_on_the_page_once():
    errors = gpu_page.page([]).split("## Memory")[0]
    for name in recipes.list_recipes():
        assert errors.count(f"| `{name}` |") == (recipes.load(name).published is not None), name
    assert "| `cifar10-resnet32-k4-greedy` | 16.07 ± 0.46 | not run | – | – | – | – |" in errors


def test_a_cell_is_mean_deviation_and_distance():
    rows = [trained(CELL, seed, error) for seed, error in enumerate([12.0, 13.0, 14.0])]
    expected = [f"`{CELL}`", "12.75 ± 0.11", "13.00 ± 1.00", "3", "**+0.25 (+2.3 σ) worse**", "12.75 ± 1.00"]
    assert line(error_table("cifar10-resnet32-*", rows), starts=f"| `{CELL}`") == [*expected, "101"]
    (near,) = error_rows([trained(CELL, 0, 12.9)])
    assert near[2:5] == ["12.90", "1", "+0.15 (+1.4 σ)"]
    (better,) = error_rows([trained(CELL, 0, 10.0)])
    assert better[4] == "-2.75 (-25.0 σ)"


def error_rows(rows):
    return [line(error_table("cifar10-resnet32-*", rows), starts=f"| `{CELL}`")]


@pytest.mark.parametrize(
    "other",
    [
        {"changed": {"epochs": 2}},
        {"changed": {"hold_out": 0.1}},
        {"error": "Diverged: the loss is not finite"},
        {"kind": "throughput"},
        {"precision": "float32"},
    ],
)
def test_what_is_not_the_published_run_is_no_cell(other):
    """One run in another precision, beside two, is compared elsewhere."""
    rows = [trained(CELL, 0, 12.0), trained(CELL, 1, 12.5), trained(CELL, 2, 99.0, **other)]
    (found,) = error_rows(rows)
    assert found[2:4] == ["12.25 ± 0.35", "2"]


def test_without_a_published_deviation_the_difference_is_in_points():
    text = error_table("imagenet-*", [trained("imagenet-resnet101-end-to-end", 0, 22.5)])
    assert line(text, starts="| `imagenet-resnet101-end-to-end`")[4] == "+0.47"


def test_memory_and_time_are_shares_of_end_to_end_on_the_same_card():
    jobs = {(j.recipe, "checkpoint" in j.changed): j for j in measurements()}
    whole, local = "cifar10-resnet110-end-to-end", "cifar10-resnet110-k2-balanced-infopro-contrast"
    rows = [
        measured(jobs[whole, False], 8_000_000_000, 0.2, 7_600_000_000),
        measured(jobs[whole, True], 4_000_000_000, 0.25, 3_600_000_000),
        measured(jobs[local, False], 5_000_000_000, 0.21, 4_900_000_000),
    ]
    text = measured_table("memory", rows)
    found = line(text, starts=f"| `{local}` | –")
    assert found[2:] == ["5.38", "57%", "1.011", "5.00", "62%", "1.050", "210.0", "0.980"]
    found = line(text, starts=f"| `{whole}` | checkpoint")
    assert found[2:] == ["3.91", "42%", "1.275", "4.00", "50%", "1.250", "250.0", "0.900"]

    elsewhere = [{**rows[0], "hardware": "another card"}, rows[2]]
    found = line(measured_table("memory", elsewhere), starts=f"| `{local}` | –")
    assert found[5:] == ["5.00", "–", "–", "210.0", "0.980"]


def test_speed_is_a_line_for_each_execution():
    eager, compiled, _ = (job for job in measurements() if job.group == "speed")
    row = {**measured(eager, 5_000_000_000, 0.02, 1), "compile_seconds": None}
    failed = {**measured(compiled, None, None, None), "execution": "compiled", "error": "RuntimeError: no"}
    assert speed_table([row, failed]).splitlines()[2:] == [
        "| eager | 20.0 | 157 | – | 5.00 |",  # 160 epochs of 49 steps
        "| compiled | failed: RuntimeError: no | – | – | – |",
        "| graphed | not run | – | – | – |",
    ]


def test_runs_with_other_settings_are_in_no_cell_but_in_a_table():
    changed = {"reconstruction_weight": [2.0, 2.0]}
    rows = [trained(CELL, seed, error, changed=changed) for seed, error in enumerate((12.0, 13.0))]
    assert f"| `{CELL}` | reconstruction_weight [2.0, 2.0] | bfloat16 | 12.50 ± 0.71 | 2 |" in gpu_page.page(
        rows
    )


def test_what_failed_is_said():
    job = next(measurements())
    failed = {**measured(job, None, None, None), "error": "OutOfMemoryError: no"}
    assert "failed: OutOfMemoryError: no" in measured_table(job.group, [failed])
    assert "## What failed" in gpu_page.page([failed])


def test_precisions_searches_and_throughput_have_tables():
    rows = [
        trained(CELL, 0, 12.0),
        trained(CELL, 0, 12.25, precision="float32"),
        trained(CELL, 0, 15.0, changed={"hold_out": 0.1, "reconstruction_weight": [5.0, 5.0]}),
        trained(CELL, 0, 0.0, kind="throughput", images_per_second=1234.4),
    ]
    text = gpu_page.page(rows)
    assert f"| `{CELL}` | float32 | 12.25 | 1 |" in text
    assert f"| `{CELL}` | hold_out 0.1, reconstruction_weight [5.0, 5.0] | 0 | 15.00 |" in text
    assert f"| `{CELL}` | bfloat16 | 4 | 1234 |" in text
    assert "- hardware: a card" in text and "- commits: 0123456789ab" in text


def test_lines_are_collected_once(tmp_path):
    results = tmp_path / "results" / "gpu.jsonl"
    for row in (trained(CELL, 0, 12.0), trained(CELL, 1, 0.0, error="lost")):
        append(tmp_path / "gpu.jsonl", row)
    assert gpu_page.collect(tmp_path, results) == 2
    append(tmp_path / "gpu.jsonl", trained(CELL, 1, 13.0))
    assert gpu_page.collect(tmp_path, results) == 1, "what failed may be replaced"
    assert [row["test_error"] for row in read(results)] == [12.0, 13.0]


def test_priorities_begin_with_one_seed_of_every_cell():
    jobs = list(priorities(seeds=3, precision="bfloat16", execution="eager"))
    assert {job.group for job in jobs} == set(GROUPS) and len({job.key for job in jobs}) == len(jobs)
    published = {n for n in recipes.list_recipes("cifar10-resnet32-*") if recipes.load(n).published}
    first = [job for job in jobs if job.group == "resnet32"]
    assert len(first) == 17 and {job.recipe for job in first} == published
    seeds = {(job.recipe, job.seed) for job in jobs if job.kind == "train" and not job.changed}
    assert {(name, seed) for name in published for seed in range(3)} <= seeds
    groups = [job.group for job in jobs]
    assert groups.index("resnet32") < groups.index("seeds") < groups.index("search")
    assert all(job.config() for job in jobs if job.kind != "script"), "every change is a field"
    assert all("hold_out" in job.changed for job in jobs if job.group == "search")


def test_what_is_published_besides_belongs_to_recipes():
    measured_steps = {(job.recipe, "checkpoint" in job.changed) for job in measurements()}
    assert TIMES.keys() <= measured_steps
    assert {(name, True) for name in CHECKPOINTED_GB} <= measured_steps


def test_a_job_and_its_line_have_one_key():
    job = Job(kind="train", recipe=CELL, changed={"reconstruction_weight": (1.0, 2.0)})
    assert job.key == Job(kind="train", recipe=CELL, changed={"reconstruction_weight": [1.0, 2.0]}).key
    assert job.key != Job(kind="train", recipe=CELL).key
    assert Job(kind="train", recipe=CELL).name != Job(kind="train", recipe=CELL, execution="compiled").name
    assert Job(kind="train", recipe=CELL).key == Job(kind="train", recipe=CELL, execution="compiled").key
    assert Job(kind="measure", recipe=CELL).key != Job(kind="measure", recipe=CELL, execution="compiled").key


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path):
    file = tmp_path / "gpu.jsonl"
    append(file, trained(CELL, 0, 12.0))
    with file.open("a") as stream:
        stream.write('{"kind": "tra')
    assert len(read(file)) == 1
    append(file, trained(CELL, 1, 13.0))
    assert [row["seed"] for row in read(file)] == [0, 1]

"""`infopro plan` and `infopro check`."""

import pytest

from infopro.cli import main

RESNET = ["cifar_resnet20", "--input", "3x32x32", "--num-classes", "10"]


def run(capsys, *arguments):
    status = main(list(arguments))
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return status, printed.out, printed.err


def test_plan_prints_a_table_with_rows_for_each_k(capsys):
    status, out, _ = run(capsys, "plan", *RESNET, "--batch-size", "64", "--num-modules", "2", "4")
    assert status == 0
    assert "input 3x32x32" in out and "K = 4: cut behind" in out and "Not counted" in out
    starts = ("end to end", "checkpoint", "accumulate", "local")
    rows = [line.strip().split("  ")[0] for line in out.splitlines() if line.strip().startswith(starts)]
    assert rows == [
        *("end to end", "checkpoint per block", "checkpoint 2 segments", "checkpoint 4 segments"),
        *("accumulate 4 parts", "local K = 2", "local K = 4"),
        *("local K = 2 + checkpoint", "local K = 4 + checkpoint"),
    ]


def test_plan_answers_a_budget_with_the_smallest_k(capsys):
    options = ["--batch-size", "64", "--num-modules", "2", "--objective", "greedy"]
    _, out, _ = run(capsys, "plan", *RESNET, *options, "--memory", "90MiB")
    assert "90.0 MiB: K = 2 is the smallest that fits" in out
    _, out, _ = run(capsys, "plan", *RESNET, *options, "--memory", "1MiB")
    assert "the parameters and the optimizer state alone need" in out


def test_plan_answers_a_budget_and_a_k_with_the_largest_batch(capsys):
    _, out, _ = run(
        capsys, "plan", *RESNET, "--num-modules", "4", "--memory", "40MiB", "--objective", "greedy"
    )
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("end to end", "local K"))]
    assert len(rows) == 2 and int(rows[0][3]) < int(rows[1][4])


def test_plan_takes_the_networks_own_input_size(capsys):
    status, out, _ = run(capsys, "plan", "timm/test_resnet", "--batch-size", "8", "--num-modules", "2")
    assert status == 0 and "input 3x160x160" in out


def test_check_is_quiet_about_a_sound_network(capsys):
    status, out, _ = run(capsys, "check", *RESNET)
    assert status == 0 and out.startswith("ready to train; cuts: ") and out.count("\n") == 1


def test_check_lists_problems_and_says_so_in_its_status(capsys):
    status, out, _ = run(capsys, "check", *RESNET, "--batch-size", "1")
    assert status == 2 and "error: BatchNorm" in out
    status, out, _ = run(capsys, "check", *RESNET, "--cuts", "layer1,layer9")
    assert status == 2 and "'layer9' is not a block" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "cifar_resnet20"], "the size of the input is not known"),
        (["plan", "cifar_resnet20", "--input", "3x0x4"], "--input cannot be read: got '3x0x4'"),
        (["plan", "cifar_resnet21", "--input", "3x32x32"], "unknown model: got 'cifar_resnet21'"),
        (["plan", *RESNET, "--num-modules", "0"], "--num-modules is out of range: got 0; allowed: >0"),
        (["plan", *RESNET, "--batch-size", "-1"], "--batch-size cannot be read: got -1"),
        (["plan", *RESNET, "--memory", "8 lots"], "a memory size cannot be read"),
        (["plan", *RESNET, "--optimizer", "rms"], "optimizer"),
        (["plan", *RESNET, "--memory", "3MiB", "--num-modules", "2"], "K = 2 does not fit into 3.00 MiB"),
        (["plan", *RESNET, "--objective", "info"], "unknown objective: got 'info'"),
        (["check", "timm/no_such_net"], "unknown model"),
        (["check", *RESNET, "--num-modules", "0"], "--num-modules is out of range: got 0; allowed: >0"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message, capsys):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == ""
    assert err.startswith("infopro: ") and err.count("\n") == 1 and message in err

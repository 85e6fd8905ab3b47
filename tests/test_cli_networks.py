"""`infopro plan` and `infopro check`."""

import pytest

from infopro.cli import main

RESNET = ["cifar_resnet20", "--input", "3x32x32", "--num-classes", "10"]


def run(capsys, *arguments):
    status = main(list(arguments))
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return status, printed.out, printed.err


def test_plan_prints_a_table_with_a_column_per_k(capsys):
    status, out, _ = run(capsys, "plan", *RESNET, "--batch-size", "64", "--num-modules", "2", "4")
    assert status == 0
    assert "input 3x32x32" in out and "K = 4: cut behind" in out and "Not counted" in out
    (peaks,) = [line.split() for line in out.splitlines() if line.strip().startswith("peak")]
    assert peaks.count("MiB") == 5, "end to end, checkpoint, accumulate, K = 2, K = 4"


def test_plan_answers_a_budget_with_the_smallest_k(capsys):
    _, out, _ = run(
        capsys, "plan", *RESNET, "--batch-size", "64", "--memory", "90MiB", "--objective", "greedy"
    )
    assert "90.0 MiB: K = 2 is the smallest that fits" in out
    _, out, _ = run(capsys, "plan", *RESNET, "--batch-size", "64", "--memory", "1MiB")
    assert "the parameters and the optimizer state alone need" in out


def test_plan_answers_a_budget_and_a_k_with_the_largest_batch(capsys):
    _, out, _ = run(
        capsys, "plan", *RESNET, "--num-modules", "4", "--memory", "40MiB", "--objective", "greedy"
    )
    (sizes,) = [line.split()[2:] for line in out.splitlines() if line.strip().startswith("batch size")]
    assert len(sizes) == 2 and int(sizes[0]) < int(sizes[1])


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
        (["plan", *RESNET, "--num-modules", "0"], "num_modules"),
        (["plan", *RESNET, "--batch-size", "-1"], "batch_size"),
        (["plan", *RESNET, "--memory", "8 lots"], "a memory size cannot be read"),
        (["plan", *RESNET, "--optimizer", "rms"], "optimizer"),
        (["plan", *RESNET, "--memory", "3MiB", "--num-modules", "2"], "K = 2 does not fit into 3.00 MiB"),
        (["plan", *RESNET, "--objective", "info"], "unknown objective: got 'info'"),
        (["check", "timm/no_such_net"], "unknown model"),
        (["check", *RESNET, "--num-modules", "0"], "num_modules"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message, capsys):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == ""
    assert err.startswith("infopro: ") and err.count("\n") == 1 and message in err

"""A mistake in an option is told in this project's words, not in the parser's."""

import pytest

from infopro.cli import main


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["export"], "infopro export needs: run, output; see infopro export --help"),
        (["evaluate"], "infopro evaluate needs: run; see infopro evaluate --help"),
        (["train", "--balance=x"], "--balance cannot be read: got x; allowed: depth, memory, time"),
        (["train", "--epochs=x"], "--epochs cannot be read: got x; allowed: whole numbers"),
        (["train", "--compile=x"], "--compile cannot be read: got x; allowed: true, false"),
        (["train", "--timeout=-3"], "--timeout is out of range: got -3; allowed: >0; see infopro train"),
        (["analyze", "run", "--only=x"], "--only cannot be read: got x; allowed: linear, input, task"),
        (["train", "--crop=3"], "--crop cannot be read: got 3; it is: rows and columns of training"),
        (["train", "--nonsense=3"], "unrecognized arguments: --nonsense=3; see infopro train --help"),
    ],
)
def test_a_mistake_is_one_line(arguments, told, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"infopro: {told}") and said.count("\n") == 1
    assert "Parser key" not in said

import io

from rich.console import Console

from infopro.training import TrainingProgress


def shown(record, *, terminal):
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=200, color_system=None)
    progress = TrainingProgress(console, title="greedy", epochs=3, steps_per_epoch=2, first_epoch=2)
    with progress as bar:
        for epoch in (2, 3):
            for step in (1, 2):
                bar.on_step(epoch, step)
            bar.on_epoch(record(epoch=epoch))
    return output.getvalue()


def test_one_plain_line_an_epoch_where_nobody_watches(record):
    lines = shown(record, terminal=False).splitlines()
    assert lines == [
        f"greedy  epoch   {epoch}/3  test error 55.00 % (best 55.00 %)  train error 60.00 %  "
        "module losses 4.600 1.000  20 images/s"
        for epoch in (2, 3)
    ]


def test_a_terminal_shows_steps_and_time_left(record):
    text = shown(record, terminal=True)
    assert "2/6" in text and "steps, left" in text and "\x1b[" in text
    assert text.count("images/s") == 2

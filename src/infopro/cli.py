"""The command line: each subcommand a few lines that call the library."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from infopro.ending import Terminated, ended_by_sigterm, signal_behind
from infopro.errors import AlreadyTold, InfoProError, UnknownName, as_told_once
from infopro.options import configuration, parse

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 if it did what was asked, 2 for a mistake that its user can mend, 1 for a lost
    process of a run, 130 for Ctrl-C, 138 for SIGUSR1 and 143 for SIGTERM."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with ended_by_sigterm():
            status = _run(arguments)
        sys.stdout.flush()  # here, where a reader that has gone is no error; else Python flushes at its end
        return status
    except BaseException as error:
        return _status_of(signal_behind(error) or error)


def _status_of(error: BaseException) -> int:
    """What a command ends with, told in one line; whatever nobody has foreseen goes on with its traceback."""
    match error:
        case AlreadyTold():
            return error.exit_status
        case InfoProError():
            return _fail(str(error), status=error.exit_status)
        case BrokenPipeError():  # `infopro list models | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        case OSError() | UnicodeError():
            return _fail(f"{type(error).__name__}: {error}")
        case SystemExit():  # --help and --print_config end the parser that way
            return int(error.code or 0)
        case Terminated() if "TORCHELASTIC_RUN_ID" in os.environ:
            return 143  # by torchrun, which has lost another process and says so
        case Terminated():
            return _fail("terminated; a training run goes on with --resume", status=143)
        case KeyboardInterrupt():
            return _fail("interrupted; a training run goes on with --resume", status=130)
    raise error


def _fail(message: str, *, status: int = 2) -> int:
    print(f"infopro: {' '.join(message.split())}", file=sys.stderr)
    return status


def _run(arguments: list[str]) -> int:
    try:
        options, parser = parse(arguments)
    except InfoProError as error:
        raise as_told_once(error) from None  # every process has the same options
    commands: dict[str, Callable[[Any], int | None]] = {
        "demo": _demo,
        "train": _train,
        "reproduce": _reproduce,
        "evaluate": _evaluate,
        "predict": _predict,
        "export": _export,
        "analyze": _analyze,
        "list": _list,
        "plan": _plan,
        "check": _check,
        "report": _report,
        "sweep": _sweep,
    }
    if options.command is None:
        parser.print_help()
        return 2
    return commands[options.command](options[options.command]) or 0


def _demo(options: Any) -> None:
    from infopro.demo import run_demo

    run_demo(
        output=Path(options.output),
        seed=options.seed,
        console=_console(),
        epochs=options.epochs,
        train_size=options.train_size,
        test_size=options.test_size,
    )


def _train(options: Any) -> int:
    from infopro.train_command import run

    return run(options, configuration(options), _console())


def _reproduce(options: Any) -> int:
    from infopro.reproduce_command import run

    return run(options, _console())


def _evaluate(options: Any) -> None:
    from infopro.evaluate_command import run

    print(run(options))


def _predict(options: Any) -> None:
    from infopro.predict_command import run

    run(options, _console())


def _export(options: Any) -> None:
    from infopro.export_command import run

    print(run(options))


def _analyze(options: Any) -> None:
    from infopro.analyze_command import run

    run(options, _console())


def _list(options: Any) -> None:
    from fnmatch import fnmatchcase

    from infopro import data, heads, models, objectives, recipes, tasks

    listings = {
        "recipes": recipes.list_recipes,
        "models": models.list_models,
        "data": data.list_data,
        "objectives": objectives.list_objectives,
        "heads": heads.list_task_heads,
        "decoders": heads.list_decoders,
        "tasks": tasks.list_tasks,
    }
    if options.kind not in listings:
        raise UnknownName("kind of list", options.kind, listings)
    names = [name for name in listings[options.kind]() if fnmatchcase(name, options.pattern)]
    if not names:
        raise UnknownName(options.kind.removesuffix("s"), options.pattern, listings[options.kind]())
    for name in names:
        print(f"{name}{recipes.published_beside(name) if options.kind == 'recipes' else ''}")


def _plan(options: Any) -> None:
    from rich.markup import escape

    from infopro.memory import plan
    from infopro.network_options import example_input, network, objective, planned_batch

    with _console().status(f"planning {escape(options.model)}: every step runs once, on fake tensors"):
        found = plan(
            network(options),
            example_input(options),
            num_modules=options.num_modules or (2, 3, 4, 8, 16),
            batch_size=planned_batch(options),
            objective=objective(options),
            optimizer=options.optimizer,
            precision=options.precision,
            balance=options.balance,
            granularity=options.granularity,
            memory=options.memory,
            device=options.device,
        )
    print(found)


def _check(options: Any) -> int:
    from rich.markup import escape

    from infopro.network_options import example_input, network, objective
    from infopro.preflight import preflight

    with _console().status(f"checking {escape(options.model)}"):
        found = preflight(
            network(options),
            example_input(options, real=True),
            num_modules=None if options.cuts is not None else options.num_modules,
            cuts=options.cuts,
            balance=options.balance,
            granularity=options.granularity,
            objective=objective(options),
        )
    print(found)
    return 0 if found else 2


def _sweep(options: Any) -> int:
    from infopro.sweep_command import run

    return run(options, _console())


def _report(options: Any) -> None:
    from infopro.run_report import default_output, report_runs

    output = Path(options.output) if options.output else default_output(options.runs)
    console = _console()
    with console.status("writing the report"):
        page = report_runs(options.runs, output=output, title=options.title)
    console.print(f"wrote {page}: open it in a browser", highlight=False, soft_wrap=True)


def _console() -> Any:
    from rich.console import Console

    return Console(markup=False)  # a file called "[/b]" is no markup

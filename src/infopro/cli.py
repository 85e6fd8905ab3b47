"""The command line: each subcommand a few lines that call the library."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from infopro.errors import BadConfiguration, InfoProError, UnknownName

__all__ = ["main"]

_LISTS = ("recipes", "models", "data", "objectives", "heads", "decoders", "tasks")
_SWITCHES = ("--download", "--resume", "--print_config", "--help", "-h")  # options without a value
_SEQUENCES = ("cuts", "reconstruction-weight", "task-weight")  # a,b,c is short for [a,b,c]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 if it did what was asked, 2 for a mistake that its user can mend, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(arguments)
    except InfoProError as error:
        return _fail(str(error))
    except BrokenPipeError:  # `infopro list models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, UnicodeError) as error:
        return _fail(f"{type(error).__name__}: {error}")
    except SystemExit as stop:  # --help and --print_config end the parser that way
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print("infopro: interrupted; a training run goes on with --resume", file=sys.stderr)
        return 130


def _fail(message: str) -> int:
    print(f"infopro: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _run(arguments: list[str]) -> int:
    from infopro import recipes

    recipe = _recipe_named_in(arguments)
    parser = _parser(recipes.load(recipe).config if recipe else recipes.RunConfig())
    options = parser.parse_args(_expanded(arguments))
    if options.command == "train":
        options.train.recipe = recipe
    commands = {"demo": _demo, "train": _train, "evaluate": _evaluate, "list": _list}
    if options.command is None:
        parser.print_help()
        return 2
    commands[options.command](options[options.command])
    return 0


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


def _train(options: Any) -> None:
    from infopro import recipes
    from infopro.data import num_batches
    from infopro.training import TrainingProgress

    console, device = _console(), recipes.choose_device(options.device)
    config = _config(options)
    recipes.check(config)
    name = options.recipe or f"{Path(config.data).stem}-{config.model.replace('/', '-')}-{config.objective}"
    path = Path(options.output or f"runs/{name}-seed{config.seed}")
    recipes.refuse_existing(path, resume=options.resume)
    data_dir = Path(options.data_dir) if options.data_dir else None
    data = recipes.prepare_data(config, data_dir=data_dir, download=options.download, device=device)
    session = recipes.prepare(config, data, device=device)
    folder, first_epoch = recipes.open_run(session, path, name=name, resume=options.resume, data_dir=data_dir)
    console.print(recipes.describe(session), highlight=False)
    if first_epoch > 1:
        console.print(f"resuming after epoch {first_epoch - 1}", highlight=False)
    steps = num_batches(data.train, batch_size=config.batch_size)
    with TrainingProgress(
        console, title=name, epochs=config.epochs, steps_per_epoch=steps, first_epoch=first_epoch
    ) as bar:
        records = recipes.train_run(
            session,
            folder,
            first_epoch=first_epoch,
            num_workers=options.num_workers,
            on_step=bar.on_step,
            on_epoch=bar.on_epoch,
        )
    last = records[-1]
    console.print(
        f"test error {last.test_error:.2f} % after the last epoch, "
        f"{last.best_test_error:.2f} % after the best one"
        f"{recipes.published_beside(options.recipe, config)}\nwrote {path}/",
        highlight=False,
        soft_wrap=True,
    )


def _evaluate(options: Any) -> None:
    from infopro import recipes

    data_dir = Path(options.data_dir) if options.data_dir else None
    state, result = recipes.evaluate_run(
        Path(options.run),
        data_dir=data_dir,
        download=options.download,
        device=recipes.choose_device(options.device),
        num_workers=options.num_workers,
    )
    print(
        f"{options.run}, epoch {state.epoch}: test error {result.error:.2f} % (loss {result.loss:.4f}) "
        f"on {result.num_images} images"
    )


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


def _parser(recipe_config: Any) -> Any:
    from jsonargparse import ArgumentParser
    from jsonargparse.typing import PositiveInt

    class Parser(ArgumentParser):
        def __init__(self, **options: Any):
            # a misspelt option must not pass for a longer one
            super().__init__(allow_abbrev=False, **options)

        def error(self, message: str, ex: Exception | None = None) -> Any:
            raise BadConfiguration(
                _one_line(message), remedy=f"see {self.prog.replace('[options] ', '')} --help"
            )

    parser = Parser(
        prog="infopro", description="Locally supervised deep learning: K modules, each with its own loss."
    )
    commands = parser.add_subcommands(dest="command", required=False)

    demo = Parser(
        description="Train one small network in four ways on embedded images and write report.html."
    )
    demo.add_argument("--output", type=str, default="infopro-demo", help="new folder for the report")
    demo.add_argument(
        "--seed", type=int, default=0, help="of rendering, initialisation, order and augmentation"
    )
    demo.add_argument(
        "--epochs", type=PositiveInt | None, default=None, help="fewer for a quick look (default: 8)"
    )
    demo.add_argument("--train-size", type=PositiveInt, default=5700, help="training images to render")
    demo.add_argument("--test-size", type=PositiveInt, default=2000, help="test images to render")
    commands.add_subcommand("demo", demo, help="see the method at work, in minutes, without any download")

    train = Parser(description="Train a recipe, or your own network and data; options override the recipe's.")
    train.add_argument("recipe", type=str, nargs="?", help="a name of `infopro list recipes`")
    train.add_argument(
        "--config", action="config", help="YAML file of the options below, as --print_config writes it"
    )
    for field in fields(recipe_config):
        kind = get_type_hints(type(recipe_config))[field.name]
        flag = f"--{field.name.replace('_', '-')}"
        train.add_argument(
            flag, type=kind, default=getattr(recipe_config, field.name), help=_help(field.name)
        )
    train.add_argument("--output", type=str, default=None, help="run folder (default: runs/RECIPE-seedN)")
    train.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoint")
    _add_data_and_device(train)
    commands.add_subcommand("train", train, help="train a network, module by module or end to end")

    evaluate = Parser(description="Test the last checkpoint of a run.")
    evaluate.add_argument("run", type=str, help="a folder that infopro train wrote")
    _add_data_and_device(evaluate)
    commands.add_subcommand("evaluate", evaluate, help="test error of a trained run")

    listing = Parser(description="Names that the other commands take.")
    listing.add_argument("kind", type=str, help=", ".join(_LISTS))
    listing.add_argument(
        "pattern", type=str, nargs="?", default="*", help="names that match, as in 'timm/resnet*'"
    )
    commands.add_subcommand("list", listing, help="recipes, models, data sets, objectives, heads")
    return parser


def _add_data_and_device(parser: Any) -> None:
    from jsonargparse.typing import NonNegativeInt

    parser.add_argument(
        "--data-dir", type=str, default=None, help="folder with the downloaded sets (default: data)"
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch a missing set; nothing else uses the network"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--num-workers", type=NonNegativeInt, default=2, help="processes that read image files"
    )


def _recipe_named_in(arguments: list[str]) -> str | None:
    """The recipe that gives `train` its defaults: known before the options are parsed."""
    if arguments[:1] != ["train"]:
        return None
    rest = iter(arguments[1:])
    named = written = None
    for argument in rest:
        if not argument.startswith("-"):
            named = named or argument
        elif "=" not in argument and argument not in _SWITCHES:
            value = next(rest, None)
            written = _recipe_written_in(value) if argument == "--config" else written
        elif argument.startswith("--config="):
            written = _recipe_written_in(argument.partition("=")[2])
    return named or written


def _recipe_written_in(file: str | None) -> str | None:
    """The `recipe:` of a YAML file; what else is wrong with the file, the parser says."""
    import yaml

    try:
        content = yaml.safe_load(Path(file or "").read_text())
    except (OSError, yaml.YAMLError):
        return None
    name = content.get("recipe") if isinstance(content, dict) else None
    return None if name is None else str(name)


def _config(options: Any) -> Any:
    from infopro.recipes import RunConfig, load

    values = {field.name: getattr(options, field.name) for field in fields(RunConfig)}
    as_tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    config = RunConfig(**as_tuples)
    recipe = load(options.recipe).config if options.recipe else RunConfig()
    return _without_leftovers(config, recipe)


def _without_leftovers(config: Any, recipe: Any) -> Any:
    """A new K or objective does not keep the recipe's cuts, which nobody asked for."""
    kept_cuts, kept_k = config.cuts == recipe.cuts, config.num_modules == recipe.num_modules
    if config.objective == "end-to-end" and kept_cuts and kept_k:
        return replace(config, num_modules=1, cuts=None)
    return replace(config, cuts=None) if kept_cuts and not kept_k else config


def _expanded(arguments: list[str]) -> list[str]:
    """--cuts a,b -> --cuts [a,b]."""
    result = list(arguments)
    for index, argument in enumerate(result):
        name, equals, value = argument.partition("=")
        if name.removeprefix("--") not in _SEQUENCES or not name.startswith("--"):
            continue
        if equals:
            result[index] = f"{name}={_as_sequence(name, value)}"
        elif index + 1 < len(result):
            result[index + 1] = _as_sequence(name, result[index + 1])
    return result


def _as_sequence(option: str, value: str) -> str:
    one_block = option == "--cuts" and value not in ("null", "")
    return f"[{value}]" if ("," in value or one_block) and not value.startswith("[") else value


def _help(name: str) -> str:
    from infopro.recipes import field_help

    return field_help()[name].replace("%", "%%")


def _one_line(message: str) -> str:
    return re.sub(r"\s+", " ", message).strip()


def _console() -> Any:
    from rich.console import Console

    return Console()

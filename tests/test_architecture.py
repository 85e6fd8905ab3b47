"""Rules of the source tree that nobody keeps by good will alone."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import infopro

ROOT = Path(infopro.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ORDER = [
    *(
        "ending",
        "errors",
        "types",
        "writable",
        "random_streams",
        "determinism",
        "compiling",
        "_plugins",
        "splitting",
        "heads",
        "tasks",
        "objectives",
        "local",
        "assembly",
    ),
    *(
        "reference",
        "check",
        "memory",
        "localization",
        "layout",
        "preflight",
        "engines",
        "models",
        "data",
        "training",
        "analysis",
        "prediction",
        "report",
    ),
    *(
        "recipes",
        "trained_network",
        "exporting",
        "reproduction",
        "run_report",
        "demo",
        "data_options",
        "network_options",
        "report_options",
        "analyze_options",
        "predict_options",
        "export_options",
        "reproduce_options",
        "option_mistakes",
        "sweep_options",
        "options",
        "stopping",
        "train_command",
        "reproduce_command",
        "analyze_command",
        "predict_command",
        "export_command",
        "evaluate_command",
    ),
    *("sweep", "sweep_command", "cli", "__main__"),
]
HEAVY = ("torchvision", "timm", "sklearn", "altair", "jinja2", "PIL", "tensorboard", "matplotlib")
MOST_LINES = 300  # of a file
LONGEST_FUNCTION = 40  # lines, docstring left out
MEDIAN_FUNCTION = 10
# imported, not run: running it is the command line
MODULES = [
    found.name
    for found in pkgutil.walk_packages(infopro.__path__, "infopro.")
    if found.name != "infopro.__main__"
]

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
every_module = pytest.mark.parametrize("name", ["infopro", *MODULES])
every_public_module = pytest.mark.parametrize("name", ["infopro", *(m for m in MODULES if "._" not in m)])


def imported(tree):
    """The parts of infopro that a file imports anywhere, functions included: {part: line}."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "infopro":
                found[rest.partition(".")[0] or "__init__"] = node.lineno
    return found


def wrong_imports(source, part):
    """What a file of `part` imports from a part that does not come before it in the order."""
    allowed = {*ORDER[: ORDER.index(part) + 1], "__version__"}
    return {name: line for name, line in imported(ast.parse(source)).items() if name not in allowed}


def test_every_part_has_its_place_in_the_order():
    parts = {file.relative_to(ROOT).parts[0].removesuffix(".py") for file in FILES} - {"__init__"}
    assert parts <= set(ORDER)


@every_file
def test_imports_point_one_way(file):
    part = file.relative_to(ROOT).parts[0].removesuffix(".py")
    if part != "__init__":  # the public surface may name every part
        assert wrong_imports(file.read_text(), part) == {}


@pytest.mark.parametrize(
    ("source", "part", "found"),
    [
        ("from infopro.local import localize", "splitting", {"local": 1}),
        ("from infopro import local", "splitting", {"local": 1}),
        ("def f():\n    import infopro.cli as c", "recipes", {"cli": 2}),
        ("import infopro", "splitting", {"__init__": 1}),
        ("from infopro.splitting import Flow\nimport torch", "splitting", {}),
        ("from infopro.errors import BadSplit", "splitting", {}),
    ],
)
def test_a_wrong_import_would_be_found(source, part, found):
    assert wrong_imports(source, part) == found


@every_file
def test_files_are_short(file):
    assert len(file.read_text().splitlines()) <= MOST_LINES


def function_lengths():
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                has_docstring = ast.get_docstring(node) is not None
                first = node.body[min(has_docstring, len(node.body) - 1)]
                yield f"{file.relative_to(ROOT)}:{node.name}", node.end_lineno - first.lineno + 1


def test_functions_are_short():
    lengths = dict(function_lengths())
    assert {name for name, length in lengths.items() if length > LONGEST_FUNCTION} == set()
    assert statistics.median(lengths.values()) <= MEDIAN_FUNCTION


@every_file
def test_nothing_is_called_utils(file):
    names = {file.stem, file.parent.name}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name.lower())
    assert not any("util" in name for name in names)


@every_public_module
def test_public_names_exist_and_are_explained(name):
    module = importlib.import_module(name)
    assert module.__doc__, "a module says in one sentence what it is for"
    public = getattr(module, "__all__", [])
    assert len(public) == len(set(public))
    for entry in public:
        value = getattr(module, entry)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert documented(value), f"{name}.{entry} has no docstring"


def documented(value):
    text = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    return bool(text) and not text.startswith(f"{value.__name__}(")  # dataclasses write their signature


def test_the_public_surface_is_sorted_and_small():
    assert infopro.__all__ == sorted(infopro.__all__) and len(infopro.__all__) <= 30


@every_module
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    failures, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failures == 0


def test_there_are_examples_to_run():
    finder = doctest.DocTestFinder()
    names = {
        test.name for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples
    }
    assert {
        "infopro.localization.localize",
        "infopro.check.isolation_check",
        "infopro.heads.task_head",
    } <= names
    assert len(names) >= 20


def test_importing_infopro_is_as_cheap_as_importing_torch():
    code = f"import sys, infopro; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "" and result.stderr == ""

"""What a stranger's file, folder or name may not do: run code, reach the network, or become markup."""

import ast
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import infopro
from infopro.cli import main
from infopro.run_report import writing
from infopro.run_report.costs import Costs

ROOT = Path(infopro.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# processes of one run speak to each other so; nothing that a user's file holds gets there
PICKLES = {"engines/channel.py"}
FORBIDDEN = {"eval", "exec", "__import__", "execfile"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
NETWORK = {"socket", "urllib", "http", "requests", "httpx", "ftplib", "smtplib", "huggingface_hub", "ssl"}


def offences(tree):
    """(line, what) of all that could run a stranger's code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, name) for name in names if name.partition(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        called, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called in FORBIDDEN or called in ("os.system", "os.popen", "torch.hub.load"):
            yield node.lineno, called
        if called in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False":
            yield node.lineno, f"{called} without allow_pickle=False"
        if called == "torch.load" and keywords.get("weights_only") != "True":
            yield node.lineno, "torch.load without weights_only=True"
        if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            yield node.lineno, called
        if keywords.get("shell", "False") != "False":
            yield node.lineno, f"{called} with a shell"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_of_the_source_can_run_what_a_user_gives(file):
    found = list(offences(ast.parse(file.read_text())))
    if str(file.relative_to(ROOT)) in PICKLES:
        found = [(line, what) for line, what in found if what != "pickle"]
    assert found == []


def test_no_file_of_the_source_speaks_to_a_network():
    """But for the locks, which say the host's name; libraries download, where `--download` says so."""
    found = {
        (str(file.relative_to(ROOT)), name)
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.partition(".")[0] in NETWORK
    }
    assert found <= {("training/lock.py", "socket"), ("engines/meeting.py", "socket")}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "eval(text)",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "yaml.load(text, Loader)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_an_offence_would_be_found(source):
    assert list(offences(ast.parse(source)))


MALICIOUS = {
    "a Python object": "model: !!python/object/apply:os.system ['touch {mark}']\n",
    "another one": "epochs: !!python/object/new:subprocess.Popen [['touch', '{mark}']]\n",
    "a class path": "model:\n  class_path: os.system\n  init_args:\n    command: touch {mark}\n",
    "a class path for data": "data: {class_path: subprocess.Popen, init_args: {args: [touch, {mark}]}}\n",
    "an option that holds a class path": "class_path: os.system\ninit_args:\n  command: touch {mark}\n",
    "anchors that grow": "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b]\n",
    "a list where a name stands": "recipe: [digits-demo-k4-greedy]\n",
    "a module name": "model: os.system\n",
    "a dotted objective": "objective: infopro.objectives.greedy.Greedy\n",
}


@pytest.mark.parametrize("case", MALICIOUS)
def test_a_configuration_file_runs_no_code(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written, mark = tmp_path / "config.yaml", tmp_path / "mark"
    written.write_text(MALICIOUS[case].replace("{mark}", str(mark)))
    run = str(tmp_path / "run")
    assert main(["train", "--config", str(written), "--device", "cpu", "--output", run]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("infopro: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml"]


def test_an_array_of_objects_is_not_read(tmp_path, capsys):
    """Its pickle would run a command."""

    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'mark'}",)

    labels = np.array([Runs(), Runs()], dtype=object)
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    options = ["--data", str(tmp_path / "data.npz"), "--model", "demo_resnet", "--device", "cpu"]
    assert main(["train", *options, "--output", str(tmp_path / "run")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "mark").exists()


EVIL = "</script><script>alert(1)</script>\"><img src=x onerror=alert(2)>=cmd()[/b]'&"


def evil_file(name):
    """As a file may be called: everything but the slash."""
    return name.replace("/", "|")


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory):
    """A run whose data, classes and folder have such names."""
    folder = tmp_path_factory.mktemp("evil")
    classes = [evil_file(EVIL), "=1+1", "[red]"]
    random = np.random.default_rng(0)
    from PIL import Image

    for part in ("train", "test"):
        for name in classes:
            (folder / evil_file(EVIL) / part / name).mkdir(parents=True)
            for number in range(8):
                pixels = random.integers(0, 255, (16, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / evil_file(EVIL) / part / name / f"{number}.png")
    options = ["--data", str(folder / evil_file(EVIL)), "--image-size", "16", "--model", "demo_resnet"]
    options += ["--objective", "infopro-softmax", "--num-modules", "2", "--epochs", "1", "--batch-size", "8"]
    options += ["--reconstruction-weight", "1", "--task-weight", "1", "--learning-rate", "0.01"]
    run = folder / f"run{evil_file(EVIL)}[" / "b]"  # a path that has a closing tag
    assert main(["train", *options, "--device", "cpu", "--output", str(run)]) == 0
    return run


def test_names_in_a_report_are_text(evil_run, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "costs_of", lambda methods: Costs())
    page = tmp_path / f"{evil_file(EVIL)}.html"
    assert main(["report", str(evil_run), "--output", str(page), "--title", EVIL]) == 0
    source = page.read_text()
    assert "<script>alert" not in source and "<img src=x" not in source
    assert source.count("<script") == 4, "the page's own: two of JSON, the library, its script"
    shown = json.loads(source.partition('id="series">')[2].partition("</script>")[0])
    assert shown["title"] == EVIL


def test_names_in_a_prediction_are_text(evil_run, tmp_path, capsys):
    from PIL import Image

    photo = tmp_path / "a[" / "b].png"  # whose path has a closing tag
    photo.parent.mkdir()
    Image.new("RGB", (16, 16)).save(photo)
    assert main(["predict", str(evil_run), str(photo), "-o", str(tmp_path / "classes.json")]) == 0
    found = json.loads((tmp_path / "classes.json").read_text())
    assert {entry["name"] for entry in found["images"][0]["classes"]} == {evil_file(EVIL), "=1+1", "[red]"}
    said = capsys.readouterr().out
    assert "a[/b].png" in said and "[red]" in said


def test_names_in_the_terminal_are_no_markup(evil_run, capsys):
    assert main(["evaluate", str(evil_run)]) == 0
    assert "[/b]" in capsys.readouterr().out
    for command in (["check", "[/b]"], ["plan", "[/b]"], ["train", "[/b]"]):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "[/b]" in line


def test_a_table_for_a_spreadsheet_holds_no_formula(tmp_path):
    """What stands in a cell is a method's, a number's or a cell's own name: none begins as a formula does."""
    from infopro.sweep import plan_cells
    from infopro.sweep.results import CellResult, write_results

    cells = plan_cells("study-digits", methods=("greedy",), num_modules=(2,), seeds=range(1), end_to_end=True)
    results = [
        CellResult(
            cell=cell, folder=tmp_path, test_error=1.0, best_test_error=1.0, seconds=1.0, of_masks=False
        )
        for cell in cells
    ]
    rows = list(csv.reader(write_results(results, tmp_path / "results.csv").read_text().splitlines()))
    assert len(rows) > 1
    assert not any(value[:1] in "=+-@\t\r" for row in rows for value in row if value)


# Python imports it before anything else: the first thing in the process that asks for an address ends it
GUARD = """
import sys
def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        print("NETWORK", event, address, file=sys.stderr, flush=True)
        import os
        os._exit(99)
sys.addaudithook(refuse)
"""


@pytest.fixture
def offline(tmp_path):
    """Runs the command line where every attempt to reach a network ends it with status 99."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "guard"), "OMP_NUM_THREADS": "1"}
    environment |= {"HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "0"}

    def run(*commands):
        code = f"from infopro.cli import main\nimport sys\nsys.exit(max(main(each) for each in {commands!r}))"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_nothing_reaches_a_network(offline, trained_run, tmp_path):
    options = ["--objective", "greedy", "--epochs", "1", "--batch-size", "32", "--device", "cpu"]
    data = ["--data", str(trained_run.parent / "colours.npz"), "--model", "demo_resnet", "--num-modules", "2"]
    status, said = offline(
        ["train", *data, *options, "--output", "run"],
        ["train", *data, *options, "--output", "run", "--resume"],
        ["evaluate", "run"],
        ["list", "data"],
    )
    assert status == 0, said


def test_the_guard_would_say_so(offline, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "guard")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 99 and "NETWORK socket.getaddrinfo" in done.stderr

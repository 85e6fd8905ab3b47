"""The documents are true: their code runs, their commands parse, their links and numbers are right."""

import contextlib
import io
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch

from infopro import cli, data, heads, models, objectives, recipes
from infopro.options import configuration
from infopro.options import parse as parse_options

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/*.md")])
TEXTS = [*PAGES, *sorted(ROOT.glob("examples/*.py")), *sorted(ROOT.glob("benchmarks/*.py"))]
OBJECTIVE_PAGES = ROOT / "docs" / "objectives"

# a page that needs another host is judged here, once
HOSTS = {"arxiv.org", "doi.org", "github.com", "keepachangelog.com", "openreview.net", "semver.org"}
HOST = re.compile(r"https?://([\w.-]+)|\b((?:[\w-]+\.)+(?:org|com))\b")
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users|mnt|opt|usr)/")
INDEX_OPTION = re.compile(r"--(?:extra-)?index-url|--find-links")

named = {"ids": lambda page: str(page.relative_to(ROOT)) if isinstance(page, Path) else None}
every_page = pytest.mark.parametrize("page", PAGES, **named)
every_text = pytest.mark.parametrize("text", TEXTS, **named)


def code_blocks(page, *languages):
    """(first line's number, text) of each fenced block in one of the languages."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [(m.string[: m.start(2)].count("\n"), m[2]) for m in found if m[1] in languages]


def shell_lines(page):
    """The commands of a page, continued lines joined; in a console block those behind a prompt."""
    for language in ("console", "sh", "bash"):
        for _, block in code_blocks(page, language):
            for line in block.replace("\\\n", " ").splitlines():
                if language != "console":
                    yield line
                elif line.startswith("$ "):
                    yield line.removeprefix("$ ")


def run_python(page, folder):
    """Execute the Python blocks of a page in order, in one namespace."""
    namespace, executed = {"__name__": "__main__"}, 0
    for line, block in code_blocks(page, "python"):
        code = compile("\n" * line + block, str(page), "exec")  # tracebacks then name the page's own line
        with contextlib.chdir(folder), torch.random.fork_rng():
            torch.manual_seed(0)
            exec(code, namespace)
        executed += 1
    return executed


def parse(arguments):
    """What `infopro` would be asked to do; raises InfoProError where it would refuse before any work."""
    options, _ = parse_options(arguments)
    assert options.command is not None, arguments
    if options.command == "list":
        cli._list(options.list)
    if options.command == "train":
        config = configuration(options.train)
        recipes.check(config)
        assert config.model in models.list_models(), config.model
        assert config.data in data.list_data() or "/" in config.data or config.data.endswith(".npz")


def run_infopro(words):
    """Parse one command; `> FILE` writes what it prints, so that a later line may read the file."""
    target = words[words.index(">") + 1] if ">" in words else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            parse(words[1 : words.index(">")] if target else words[1:])
        except SystemExit as end:  # --help, --print_config
            assert end.code in (0, None)
    if target is not None:
        Path(target).write_text(printed.getvalue())


def check_command(line):
    """Check one line of shell: our own command, a script, a make target or an extra of ours must exist."""
    for part in re.split(r"\s+&&\s+", line):
        words = shlex.split(part, comments=True)
        if words[:1] == ["infopro"]:
            run_infopro(words)
        elif words[:1] == ["python"]:
            script = words[1:3] if words[1] == "-m" else words[1:2]
            assert script[0] == "-m" or (ROOT / script[0]).is_file(), part
        elif words[:1] == ["make"]:
            targets = [word for word in words[1:] if "=" not in word]
            assert set(targets) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        for extra in re.findall(r"\[([\w,]+)\]", part) if "pip" in words else ():
            assert set(extra.split(",")) <= extras(), part


def extras():
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def prose(page):
    """The page without its code."""
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page):
    """The relative links of a page that lead to no file, or to no heading of it."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


def machine_traces(text):
    """What would tie a text to one machine, or name a host that is not on the list."""
    hosts = {a or b for a, b in HOST.findall(text)}
    allowed = {host for host in hosts if host.removeprefix("www.") in HOSTS}
    return sorted(hosts - allowed) + MACHINE_PATH.findall(text) + INDEX_OPTION.findall(text)


def published_rows(names):
    """The rows of the published tables that hold these objectives' numbers, as the pages print them."""
    grid, rows = {}, []
    for recipe in map(recipes.load, recipes.list_recipes()):
        published, config = recipe.published, recipe.config
        if published is None or config.objective not in names:
            continue
        error = f"{published.test_error:.2f}"
        if published.standard_deviation is not None:
            error += f" ± {published.standard_deviation:.2f}"
        if published.table == "Table 2" and config.num_modules > 1:
            family = recipe.name.replace(f"-k{config.num_modules}-", "-kK-")
            grid.setdefault(family, {})[config.num_modules] = error
        else:
            others = ["–" if n is None else f"{n:.2f}" for n in (published.top5_error, published.memory_gb)]
            rows.append(f"| `{recipe.name}` | {error} | {' | '.join(others)} | {published.table} |")
    return rows + [f"| `{f}` | {' | '.join(cells[k] for k in (2, 4, 8, 16))} |" for f, cells in grid.items()]


@every_page
def test_python_blocks_run(page, tmp_path):
    assert run_python(page, tmp_path) == len(list(code_blocks(page, "python")))


@every_page
def test_commands_parse(page, tmp_path):
    with contextlib.chdir(tmp_path):
        for line in shell_lines(page):
            check_command(line)


@every_page
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


@every_text
def test_no_machine_is_named(text):
    assert machine_traces(text.read_text()) == []


@every_page
def test_recipes_that_are_named_exist(page):
    text = page.read_text()
    for name in re.findall(r"`((?:cifar10|svhn|stl10|imagenet|digits-demo)-[\w*-]+)`", text):
        assert recipes.list_recipes(name.replace("-kK-", "-k*-")), name


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("end-to-end", ["end-to-end"]),
        ("greedy", ["greedy"]),
        ("dgl", ["dgl"]),
        ("infopro", ["infopro-softmax", "infopro-contrast"]),
    ],
)
def test_published_numbers_are_those_of_the_recipes(page, names):
    printed = re.findall(
        r"^\| `.*±.*\|$|^\| `(?:imagenet|cityscapes)-.*\|$", text := page_of(page).read_text(), re.MULTILINE
    )
    assert sorted(printed) == sorted(published_rows(names))
    assert "infopro train " in text


def page_of(file):
    return OBJECTIVE_PAGES / f"{file}.md"


def test_every_objective_has_a_page():
    files = {path.stem for path in (ROOT / "src/infopro/objectives").glob("*.py")}
    public = {stem.replace("_", "-") for stem in files if not stem.startswith("_")}
    assert {path.stem for path in OBJECTIVE_PAGES.glob("*.md")} == {"README", *public}


def test_the_comparison_names_every_objective_and_head():
    text = page_of("README").read_text()
    names = [*objectives.list_objectives(), *heads.list_task_heads(), *heads.list_decoders()]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_data_set_is_described():
    text = (ROOT / "docs" / "data.md").read_text()
    assert [name for name in data.list_data() if f"| `{name}` |" not in text] == []


# The checks themselves can fail.


@pytest.mark.parametrize(
    "line",
    [
        "infopro train cifar10-resnet33-k4-greedy",
        "infopro train --batchsize 3",
        "infopro train --model timm/resnet51",
        "infopro train --data cifar11",
        "infopro train cifar10-resnet32-k4-greedy --cuts layer1.0 --num-modules 8",
        "infopro list recipies",
        "infopro",
        "python examples/none.py",
        "make everything",
        'pip install "infopro[everything]"',
    ],
)
def test_wrong_commands_are_found(line):
    with pytest.raises((ValueError, AssertionError)):
        check_command(line)


def test_failing_code_is_found_in_the_last_block(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run_python(page, tmp_path)
    assert caught.traceback[-1].lineno + 1 == 6


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](#a-title) [b](#b) [c](none.md) [d](page.md#a-title) `[e](code.md)`\n")
    assert broken_links(page) == ["#b", "none.md"]


def test_console_blocks_hold_output_too(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```console\n$ infopro list \\\n  data\ncifar10\n```\n```sh\nmake test\n```\n")
    assert [line.split() for line in shell_lines(page)] == [["infopro", "list", "data"], ["make", "test"]]


@pytest.mark.parametrize(
    "text", ["see example.org", "https://example.com/simple", "cd /home/me", "pip install --index-url x y"]
)
def test_machine_traces_are_found(text):
    assert machine_traces(text)
    assert machine_traces("https://arxiv.org/abs/1 a/home/b src/infopro/data.py") == []

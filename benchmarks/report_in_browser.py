"""Opens a report in headless Chromium: no message on the console, every chart drawn, screenshots to look at.

    python benchmarks/report_in_browser.py PAGE.html --screenshots FOLDER

Exit status 1 where the console has a message or a chart is missing. Needs `chromium` (Debian's package);
nothing is fetched: the page may request nothing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--virtual-time-budget=30000",
)
VIEWS = {  # name: width and height in CSS pixels, further options
    "light": (1200, 14000, ()),
    "dark": (1200, 14000, ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")),
    "phone": (360, 26000, ()),
}


def main() -> int:
    """Check one page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument(
        "--screenshots", type=Path, default=None, help="folder for light.png, dark.png, phone.png"
    )
    options = parser.parse_args()
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        print(f"none of {', '.join(BROWSERS)} is installed", file=sys.stderr)
        return 2
    page = options.page.resolve()
    problems = check(browser, page)
    if options.screenshots is not None:
        options.screenshots.mkdir(parents=True, exist_ok=True)
        for name in VIEWS:
            print(f"wrote {photograph(browser, page, name, options.screenshots)}")
    print("\n".join(problems) or f"{page.name}: every chart is drawn, and the console is empty")
    return bool(problems)


def check(browser: str, page: Path) -> list[str]:
    """Messages on the console, and figures without a drawing."""
    arguments = [browser, *OPTIONS, "--window-size=1200,14000", "--enable-logging=stderr", "--dump-dom"]
    found = subprocess.run([*arguments, page.as_uri()], capture_output=True, text=True, timeout=180)
    console = [line.partition("CONSOLE")[2] for line in found.stderr.splitlines() if "CONSOLE" in line]
    figures = re.findall(r'<figure id="([\w-]+)" data-chart="">(.*?)</figure>', found.stdout, re.DOTALL)
    missing = [f"no drawing: {key}" for key, content in figures if "<svg" not in content]
    return [*console, *missing, *([] if figures else ["the page has no chart"])]


def photograph(browser: str, page: Path, view: str, folder: Path) -> Path:
    """One picture of the whole page; in a frame, because a window is never narrower than 500 pixels."""
    width, height, extra = VIEWS[view]
    target = folder / f"{view}.png"
    with tempfile.TemporaryDirectory() as place:
        frame = Path(place) / "frame.html"
        style = f"border:0;width:{width}px;height:{height}px"
        frame.write_text(f'<body style="margin:0"><iframe src="{page.as_uri()}" style="{style}"></iframe>')
        size = f"--window-size={max(500, width)},{height}"
        subprocess.run(
            [browser, *OPTIONS, *extra, size, f"--screenshot={target}", frame.as_uri()],
            capture_output=True,
            timeout=180,
            check=True,
        )
    return target


if __name__ == "__main__":
    sys.exit(main())

"""Creates the pictures of README.md: `switchyard demo` as SVG, its report and its run in MLflow as PNG. `make pictures`.

Needs Chromium. Everything runs in a temporary workspace; nothing is downloaded.
"""

import json
import os
import pty
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).parent / "images"
COLUMNS, ROWS = 120, 40
COMMAND = [sys.executable, "-m", "switchyard"]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def record(arguments: list[str]) -> str:
    """Runs the command in a pseudo-terminal and returns its output with colours."""
    variables = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm-256color"}
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=variables)
    os.close(theirs)
    found = b""
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # the terminal's other end is closed
                break
            sys.stderr.write(piece.decode(errors="replace"))
            found += piece
    if process.wait():
        raise SystemExit(f"switchyard {' '.join(arguments)} ended with exit code {process.returncode}")
    return found.decode(errors="replace")


def last_screen(text: str, workspace: Path) -> list[str]:
    """Returns the final lines, without those that a live display has overwritten."""
    text = text.replace("\r\n", "\n").replace(str(workspace), ".switchyard")
    lines: list[str] = []
    for line in text.split("\n"):
        # The display moves the cursor up and redraws these lines.
        up = sum(int(n or 1) for n in re.findall(r"\x1b\[(\d*)A", line))
        if up:
            del lines[-up:]
        kept = re.split(r"\x1b\[2K|\r", line)[-1]
        lines.append(re.sub(r"\x1b\[\??[\d;]*[A-HJKSTfhlsu]", "", kept))
    return lines


def draw(lines: list[str], file: Path) -> None:
    """Writes the lines as SVG with the viewer's monospaced font."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        for line in lines:
            console.print(Text.from_ansi(line), no_wrap=True, overflow="crop")
        svg = console.export_svg(title="switchyard demo")
    # Rich refers to a web font.
    file.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, ", ""), encoding="utf-8")


def free_port() -> int:
    """Returns a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def photograph(workspace: Path, link: str) -> None:
    """Takes screenshots of the report and the run's MLflow page in Chromium."""
    port = free_port()
    server = subprocess.Popen([*COMMAND, "ui", "--workspace", str(workspace), "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        [report] = (workspace / "artifacts").glob("report/report/*/report.html")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1000, "height": 1100})
            page.goto(report.as_uri())
            page.screenshot(path=IMAGES / "report.png")
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(link.replace("127.0.0.1:5000", f"127.0.0.1:{port}"))
            page.get_by_text("Metrics").first.wait_for(timeout=60_000)
            page.wait_for_timeout(3_000)  # the tables load one after the other
            # Crops MLflow's assistant.
            page.screenshot(path=IMAGES / "mlflow.png", clip={"x": 0, "y": 0, "width": 1035, "height": 1000})
            browser.close()
    finally:
        server.terminate()
        server.wait()


def main() -> int:
    """Creates all pictures."""
    if CHROMIUM is None:
        raise SystemExit("make pictures: Chromium is missing: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="switchyard-pictures-") as folder:
        workspace = Path(folder) / "w"
        lines = last_screen(record(["demo", "--workspace", str(workspace)]), workspace)
        [link] = re.findall(r"http://127\.0\.0\.1:5000/\S+", re.sub(r"\x1b\[[\d;]*m", "", "\n".join(lines)))[:1]
        draw([line for line in lines if line.strip()], IMAGES / "demo.svg")
        photograph(workspace, link)
    print(json.dumps({file.name: file.stat().st_size for file in sorted(IMAGES.iterdir())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

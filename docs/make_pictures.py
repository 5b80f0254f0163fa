"""Creates the pictures of README.md and docs/: the demo as SVG, pages of tests/reviewer.py's walk as PNG. `make screenshots`.

Needs Chromium. Everything runs in a temporary workspace; nothing is downloaded.
"""

import json
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.command import BREAST_CANCER, COMMAND, environment, free_port, wait_for  # noqa: E402
from tests.reviewer import CHROMIUM, Reviewed, browser, walk  # noqa: E402

IMAGES = Path(__file__).parent / "images"
COLUMNS, ROWS = 120, 40
# MLflow shows who ran a pipeline.
VARIABLES = environment(
    PYTHONPATH=REPOSITORY, COLUMNS=COLUMNS, LINES=ROWS, TERM="xterm-256color", LOGNAME="ada", SWITCHYARD_WARM=0
)
# The learning rate of the run that is compared with the demo's.
OTHER = "0.003"
# Picture of the walk -> file here, and what is shown of it: left, top, right, bottom in pixels.
SHOWN = {
    "report-1400": ("report.png", (40, 0, 1400, 1000)),
    "run": ("mlflow.png", (205, 0, 1400, 820)),
    "version": ("mlflow-version.png", (205, 0, 1400, 590)),
}


def record(arguments: list[str]) -> str:
    """Runs the command in a pseudo-terminal and returns its output with colours."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=VARIABLES)
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


def train(workspace: Path, *options: str) -> dict[str, object]:
    """Runs the demo's pipeline once more; returns the result as JSON."""
    command = [*COMMAND, "run", str(BREAST_CANCER), "--workspace", str(workspace), "--json", *options]
    done = subprocess.run(command, env=VARIABLES, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 4):  # 4: not blessed
        raise SystemExit(f"switchyard run ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def reviewed(client: MlflowClient, experiment: str, run: str, other: str, workspace: Path) -> Reviewed:
    """Returns what the walk looks at: the demo's run, beside another one."""
    found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run}'")
    stages = {r.info.run_name: r.info.run_id for r in found}
    names = (str(client.get_run(run).info.run_name), str(client.get_run(other).info.run_name))
    rates = tuple(str(client.get_run(r).data.params["learning_rate"]) for r in (run, other))
    report = min((workspace / "artifacts").glob("report/report/*/report.html"), key=lambda f: int(f.parent.name))
    champion = client.get_model_version_by_alias("breast_cancer", "champion").version
    nested = (stages["training_tensorflow"], stages["evaluation"])
    return Reviewed(experiment, run, other, names, ("learning_rate", *rates), nested, "breast_cancer", str(champion), report)


def photograph(workspace: Path, link: str, pictures: Path) -> None:
    """Walks through the workspace's MLflow as a reviewer does, and leaves the pictures."""
    other = str(
        train(workspace, "--trainer", "pytorch", "--set", f"trainer.hyperparameters.learning_rate={OTHER}")["mlflow_run_id"]
    )
    port = free_port()
    server = subprocess.Popen(
        [*COMMAND, "ui", "--workspace", str(workspace), "--port", str(port)], env=VARIABLES, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        [(experiment, run)] = re.findall(r"experiments/(\d+)/runs/(\w+)", link)
        at = reviewed(MlflowClient(f"http://127.0.0.1:{port}"), experiment, run, other, workspace)
        with sync_playwright() as playwright:
            chromium = browser(playwright)
            walk(chromium, f"http://127.0.0.1:{port}", at, pictures)
            chromium.close()
    finally:
        server.terminate()
        server.wait()


def shrink(picture: Path, box: tuple[int, int, int, int], file: Path) -> None:
    """Stores a part of a picture in 256 colours, which is half of its size."""
    with Image.open(picture) as found:
        found.convert("RGB").crop(box).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            file, optimize=True
        )


def main() -> int:
    """Creates all pictures."""
    if CHROMIUM is None:
        raise SystemExit("make screenshots: Chromium is missing: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="switchyard-pictures-") as folder:
        workspace = Path(folder) / "w"
        lines = last_screen(record(["demo", "--workspace", str(workspace)]), workspace)
        [link] = re.findall(r"http://127\.0\.0\.1:5000/\S+", re.sub(r"\x1b\[[\d;]*m", "", "\n".join(lines)))[:1]
        draw([line for line in lines if line.strip()], IMAGES / "demo.svg")
        pictures = Path(os.environ.get("SWITCHYARD_SCREENSHOTS", folder))
        photograph(workspace, link, pictures)
        for name, (file, box) in SHOWN.items():
            shrink(pictures / f"{name}.png", box, IMAGES / file)
    print(json.dumps({file.name: file.stat().st_size for file in sorted(IMAGES.iterdir())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs the benchmarks with a target in parts, each of which is saved as it ends, and prints one table.

python benchmarks/all.py --list                               # the parts, their minutes on two cores, their commands
python benchmarks/all.py --folder results [--only PART ...]   # runs parts; prints the table of all that the folder holds
python benchmarks/all.py --folder results --table             # prints the table alone
python benchmarks/all.py --folder results --quick             # every part on little data: tries the commands, not the targets

Each part is a command in this folder, which documents its method and checks that both sides give the same results; a part whose
sides differ fails. FOLDER gets PART.log, then PART.json (figures, machine, load, commit, time) or PART.failed.log. A part
that was measured is measured again if it is named by `--only`, otherwise it is skipped: an interrupted command continues.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import machine, row

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Part:
    """A part of the table.

    Attributes:
        minutes: on two cores.
        command: script and arguments.
        quick: arguments on little data, instead of those of `command`.
    """

    minutes: int
    command: tuple[str, ...]
    quick: tuple[str, ...] = ()


def _part(minutes: int, command: str, quick: str = "") -> Part:
    return Part(minutes, tuple(command.split()), tuple(quick.split()))


PARTS = {
    "start-up": _part(1, "start_up.py"),
    "stock-20k": _part(6, "pipeline.py --rows 20000 --warm", "--rows 2000 --warm"),
    "stock-500k": _part(12, "pipeline.py --rows 500000 --warm", "--rows 4000 --warm"),
    "hand-20k": _part(6, "whole_job.py --rows 20000 --repeats 2", "--rows 2000"),
    "hand-500k": _part(8, "whole_job.py --rows 500000", "--rows 4000"),
    "trainers": _part(12, "trainers.py", "--rows 5000 --epochs 2 --repeats 1"),
    "wide": _part(28, "wide_data.py --limit 1200", "--columns 10 60 --limit 300"),
    "wide-texts": _part(
        8, "wide_data.py --texts 0.2 --missing 0.2 --no-stock", "--columns 10 60 --texts 0.2 --missing 0.2 --no-stock"
    ),
    "rows": _part(7, "scaling.py --rows 500000 5000000", "--rows 4000 20000"),
    "predict": _part(6, "predicting.py", "--rows 50000"),
    "served": _part(5, "served.py", "--seconds 1"),
    "tracking": _part(3, "tracking_share.py --rows 500000", "--rows 4000"),
    "columns": _part(12, "scaling.py --many columns", "--many columns --share 0.02"),
    "classes": _part(4, "scaling.py --many classes", "--many classes --share 0.1"),
    "words": _part(10, "scaling.py --many words", "--many words --share 0.01"),
    "slices": _part(4, "scaling.py --many slices", "--many slices --share 0.1"),
}


def main() -> None:
    """Runs the parts and prints the table; the exit code is 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("benchmark-results"), help="of the results (benchmark-results)")
    parser.add_argument("--only", choices=PARTS, nargs="+", metavar="PART", help="run these parts, measured before or not")
    parser.add_argument("--quick", action="store_true", help="on little data")
    parser.add_argument("--list", action="store_true", help="print the parts and end")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    if options.list:
        for name, part in PARTS.items():
            print(f"{name:12}{part.minutes:4} min   {' '.join(part.command)}")
        print(f"{'':12}{sum(part.minutes for part in PARTS.values()):4} min")
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = [] if options.table else [name for name in _wanted(options) if not _run(name, options)]
    _print(options.folder)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see {options.folder}/PART.failed.log")


def _wanted(options: argparse.Namespace) -> list[str]:
    return options.only or [name for name in PARTS if not (options.folder / f"{name}.json").exists()]


def _run(name: str, options: argparse.Namespace) -> bool:
    """Runs a part and saves its figures, or why it failed; returns whether it succeeded."""
    part = PARTS[name]
    arguments = [part.command[0], *part.quick] if options.quick else list(part.command)
    print(f"{time.strftime('%H:%M:%S')} {name}: {' '.join(arguments)} (about {part.minutes} min)", file=sys.stderr, flush=True)
    before, started = machine(), time.time()
    log, failed, file = (options.folder / f"{name}.{suffix}" for suffix in ("log", "failed.log", "json"))
    failed.unlink(missing_ok=True)
    command = [sys.executable, str(FOLDER / arguments[0]), *arguments[1:], "--json"]
    with log.open("w", encoding="utf-8") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
    if done.returncode:
        log.replace(failed)
        print(f"{name} failed:\n{failed.read_text(encoding='utf-8')[-2000:]}", file=sys.stderr)
        return False
    found = {
        "part": name,
        "command": arguments,
        "quick": options.quick,
        "before": before,
        "after": machine(),
        "commit": _commit(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(started)),
        "minutes": round((time.time() - started) / 60, 1),
        "found": json.loads(done.stdout.splitlines()[-1]),
    }
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(found, indent=1), encoding="utf-8")
    unfinished.replace(file)
    for each in _rows(found):
        print(_line(each), file=sys.stderr, flush=True)
    return True


def _commit() -> str:
    command = ["git", "-C", str(FOLDER), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _print(folder: Path) -> None:
    print(f"{'':78}{'measured':>12}{'target':>12}")
    for name in PARTS:
        file = folder / f"{name}.json"
        if (folder / f"{name}.failed.log").exists():
            print(f"{name}: failed, see {name}.failed.log")
        elif not file.exists():
            print(f"{name}: not measured")
        else:
            found = json.loads(file.read_text(encoding="utf-8"))
            quick = ", --quick" * found["quick"]
            print(f"{name}: {found['started']}, {found['minutes']} min, {found['commit']}, {found['after']}{quick}")
            for each in _rows(found):
                print(_line(each))


def _rows(saved: dict[str, Any]) -> Iterator[dict[str, Any]]:
    found = saved["found"]
    if "table" in found:
        yield from found["table"]
        return
    for setting in found["settings"]:  # trainers.py
        for pair in setting["pairs"]:
            yield row(pair["what"], pair["ratio"], pair["target"], at_least=pair["target"] < 1)


def _line(each: dict[str, Any]) -> str:
    value, target, unit = each["measured"], each["target"], each["unit"]
    shown = f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"
    text = f"  {each['what']:76}{f'{shown} {unit}'.strip():>12}"
    if target is None:
        return text
    reached = value >= target if each["at_least"] else value <= target
    bound = f"{'>=' if each['at_least'] else '<='} {target:,g}"
    return f"{text}{bound:>12}  {'reached' if reached else 'missed'}"


if __name__ == "__main__":
    main()

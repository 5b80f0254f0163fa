"""Looks up the locked packages in databases of known vulnerabilities with pip-audit: OSV, then the package index.

Exit codes: 0 every vulnerability is accepted (`accepted.toml`); 1 one is not; 3 some packages could not be looked up.
pip-audit alone exits with 0 and "no known vulnerabilities" if a mirror of the index has data on no package at all.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLEAN, FLAWED, NOT_RUN = 0, 1, 3
SERVICES = ("osv", "pypi")
ACCEPTED = Path(__file__).parent / "accepted.toml"
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
_SECONDS = 1200

Pin = tuple[str, str]


@dataclass(frozen=True)
class Flaw:
    """A known flaw of a pinned package: its identifiers, and the versions that have it no more."""

    package: str
    version: str
    ids: tuple[str, ...]
    fixed_in: tuple[str, ...]

    def line(self) -> str:
        """Returns it in one line."""
        fixed = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "not fixed yet"
        return f"{self.package} {self.version}: {' = '.join(self.ids)}, {fixed}"


@dataclass(frozen=True)
class Answers:
    """The answer of a database: the packages it knows, their vulnerabilities, and why it has no answer for the others."""

    known: frozenset[Pin]
    flaws: tuple[Flaw, ...]
    why_not: str


def canonical(name: str) -> str:
    """Returns a package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(locks: Iterable[Path]) -> frozenset[Pin]:
    """Returns (name, version) of everything that lock files pin."""
    return frozenset((canonical(name), version) for lock in locks for name, version in _PIN.findall(lock.read_text()))


def look_up(wanted: Iterable[Pin], service: str) -> Answers:
    """Asks one database of all packages. Two versions of one package are asked in turn, as pip-audit takes one."""
    rounds: list[dict[str, str]] = []
    for name, version in sorted(wanted):
        free = next((r for r in rounds if name not in r), None)
        if free is None:
            rounds.append(free := {})
        free[name] = version
    answers = [_ask(r, service) for r in rounds]
    return Answers(
        frozenset().union(*(a.known for a in answers)),
        tuple(f for a in answers for f in a.flaws),
        next((a.why_not for a in answers if a.why_not), ""),
    )


def _ask(wanted: Mapping[str, str], service: str) -> Answers:
    with tempfile.TemporaryDirectory() as work:
        listed, output = Path(work) / "pins.txt", Path(work) / "answer.json"
        listed.write_text("".join(f"{name}=={version}\n" for name, version in wanted.items()))
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--requirement", str(listed)]
        command += ["--vulnerability-service", service, "--format", "json", "--output", str(output), "--timeout", "15"]
        try:
            done = subprocess.run(
                [*command, "--progress-spinner", "off"], capture_output=True, text=True, timeout=_SECONDS, check=False
            )
            said = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            return answers(json.loads(output.read_text()))
        except subprocess.TimeoutExpired:
            said = f"no answer within {_SECONDS} s"
        except (OSError, ValueError):
            pass
    return Answers(frozenset(), (), said[:300])


def answers(report: Mapping[str, list[dict[str, Any]]]) -> Answers:
    """Reads pip-audit's report; what it skipped is not known."""
    asked = report["dependencies"]
    looked_at = [d for d in asked if "vulns" in d and "skip_reason" not in d]
    skipped = [d["skip_reason"] for d in asked if "skip_reason" in d]
    flaws = tuple(
        Flaw(canonical(d["name"]), d["version"], (v["id"], *v.get("aliases", ())), tuple(v.get("fix_versions", ())))
        for d in looked_at
        for v in d["vulns"]
    )
    why_not = f"{len(skipped)} packages: {skipped[0]}" if skipped else ""
    return Answers(frozenset((canonical(d["name"]), d["version"]) for d in looked_at), flaws, why_not)


def accepted(file: Path, today: datetime.date) -> dict[tuple[str, str, str], str]:
    """Returns (identifier, package, version) -> reason, of the entries whose day is still to come."""
    entries = tomllib.loads(file.read_text())["accepted"]
    return {
        (e["id"], canonical(e["package"]), version): e["reason"].strip()
        for e in entries
        if e["until"] >= today
        for version in e["versions"]
    }


def split(flaws: Iterable[Flaw], known: Mapping[tuple[str, str, str], str]) -> tuple[list[Flaw], list[tuple[Flaw, str]]]:
    """Returns the flaws that are not accepted, and those that are with their reasons; each once."""
    left, taken = [], []
    for flaw in sorted(set(flaws), key=lambda f: f.line()):
        reason = next((known[k] for i in flaw.ids if (k := (i, flaw.package, flaw.version)) in known), None)
        if reason is None:
            left.append(flaw)
        else:
            taken.append((flaw, reason))
    return left, taken


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def audit(
    locks: Sequence[Path], services: Sequence[str] = SERVICES, ask: Callable[[Iterable[Pin], str], Answers] = look_up
) -> int:
    """Looks everything up, prints what is found and returns the exit code."""
    wanted = pins(locks)
    unknown = wanted
    flaws: list[Flaw] = []
    reasons: list[str] = []
    for service in services:
        if not unknown:
            break
        found = ask(unknown, service)
        unknown -= found.known
        flaws += found.flaws
        if found.why_not:
            reasons.append(f"  {service}: {found.why_not}")
    left, taken = split(flaws, accepted(ACCEPTED, datetime.datetime.now(tz=datetime.UTC).date()))
    for flaw, reason in taken:
        _say(f"accepted: {flaw.line()}\n  {reason}")
    for flaw in left:
        _say(f"FLAW: {flaw.line()}")
    _say(
        f"audit: {len(wanted) - len(unknown)} of {len(wanted)} pinned packages looked up, {len(left)} vulnerabilities not "
        "accepted"
    )
    if left:
        _say("Update the pin (make lock), or accept the vulnerability with a reason in infra/audit/accepted.toml.")
        return FLAWED
    if unknown:
        _say(
            "\n".join([f"audit: NOT RUN for {len(unknown)} packages, no vulnerability database is reachable for them:", *reasons])
        )
        return NOT_RUN
    return CLEAN


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("locks", nargs="+", type=Path)
    parser.add_argument("--allow-not-run", action="store_true", help="exit with 0 if no database is reachable, and report it")
    given = parser.parse_args()
    code = audit(given.locks)
    return CLEAN if code == NOT_RUN and given.allow_not_run else code


if __name__ == "__main__":
    sys.exit(main())

"""The options of tests/cluster/test_any_cluster.py, which runs against any KFP, and its table of what held there."""

FILE = "tests/cluster/test_any_cluster.py"
# The tests in the order in which they ran.
_ran = {}


def pytest_runtest_logreport(report):
    _ran.setdefault(report.nodeid, None)


def pytest_addoption(parser):
    group = parser.getgroup("cluster", "a KFP to test (make test-cluster HOST=...)")
    group.addoption("--cluster-host", default="stand-in", metavar="URL", help="KFP's address; stand-in: one that is started here")
    group.addoption("--cluster-namespace", metavar="NAME")
    group.addoption("--cluster-token-file", metavar="FILE")
    group.addoption("--cluster-image", metavar="NAME", help="container image for the tasks")
    group.addoption("--cluster-mlflow", metavar="URI", help="MLflow's address for this machine")
    group.addoption(
        "--cluster-set", default="", metavar="'KEY=VALUE ...'", help="settings of every pipeline, separated by spaces"
    )
    group.addoption("--cluster-deploy", default="", metavar="'--OPTION ...'", help="options for switchyard deploy")


def pytest_terminal_summary(terminalreporter, config):
    rows = {}
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            if getattr(report, "nodeid", "").startswith(FILE):
                # What failed in its end, having passed before, has failed.
                rows[report.nodeid] = (
                    outcome,
                    _seconds(terminalreporter, report.nodeid),
                    _why(report) if outcome != "passed" else "",
                )
    if not rows:
        return
    terminalreporter.section(f"results on {config.getoption('--cluster-host')}")
    for nodeid, (outcome, seconds, why) in sorted(rows.items(), key=lambda row: list(_ran).index(row[0])):
        terminalreporter.write_line(f"{outcome:<8}{seconds:5.0f} s  {_sentence(nodeid)}" + (f"\n{'':<17}{why}" if why else ""))
    counts = [o for o, _, _ in rows.values()]
    terminalreporter.write_line(", ".join(f"{counts.count(o)} {o}" for o in dict.fromkeys(counts)))


def _sentence(nodeid):
    return (
        nodeid.partition("::")[2].removeprefix("test_").replace("_", " ").replace("[", " (").replace("]", ")").partition("@")[0]
    )


def _seconds(terminalreporter, nodeid):
    reports = [r for found in terminalreporter.stats.values() for r in found if getattr(r, "nodeid", "") == nodeid]
    return sum(getattr(r, "duration", 0) for r in reports)


def _why(report):
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return " ".join((crash.message if crash else str(report.longrepr)).split())[:600]

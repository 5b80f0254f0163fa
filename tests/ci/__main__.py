"""`python -m tests.ci` prints the plan to stderr and the suites to run to stdout; with `landed [COMMIT]` it notes a landing."""

import sys

from tests.ci import history, plan


def main(arguments):
    if arguments[:1] == ["landed"]:
        # CI ran the plan of this commit, and what landed passed it; CI itself commits no record.
        passed = [] if arguments[1:] else [c.name for c in plan.of_this_commit()[0] if c.runs]
        print(f"landed: {history.land(*arguments[1:2], passed=passed)}")
        return 0
    choices, document = plan.of_this_commit()
    landed = document["landings"][-1][:12] if document["landings"] else "none noted"
    print(f"CI: make test, and these suites (last landing: {landed})", file=sys.stderr)
    for choice in choices:
        last = document["suites"].get(choice.name)
        passed = f"last passed at {last['commit'][:12]}" if last else "no pass recorded"
        passed += f", recorded passes in a row: {last['in_a_row']}" if last and "in_a_row" in last else ""
        does = f"runs, about {choice.seconds / 60:.0f} min" if choice.runs else "does not run"
        print(f"  {choice.name:<12}{does:<22}{choice.why}; {passed}", file=sys.stderr)
    late = plan.overdue(plan.table(), document, {c.name for c in choices if c.runs})
    for name, landings in late.items():
        print(
            f"{name}: last passed {landings} landings ago, the limit is {plan.MOST_LANDINGS}; run make test-{name}",
            file=sys.stderr,
        )
    forgotten = history.commits_under_way(document) > plan.MOST_UNDER_WAY
    if forgotten:
        print(f"more than {plan.MOST_UNDER_WAY} commits since the last recorded landing; run make landed", file=sys.stderr)
    print(" ".join(c.name for c in choices if c.runs))
    return 1 if late or forgotten else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

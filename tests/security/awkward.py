"""Names that a column may have, each of them code to something."""

MARK = "qx7mark"  # in every name: no file of an export may hold it, but for the list of names


def names(canary):
    """Returns the names; those that are commands make the file `canary` when something runs them."""
    touch = f'__import__("os").system("touch {canary}")'
    return [
        f'{MARK}"+str({touch})+"',
        f"{MARK}'+str({touch})+'",
        f"{MARK}']; {touch}; x=['",
        f'{MARK}"]; {touch}; x=["',
        f'{MARK} it\'s "both" `quotes`',
        f"{MARK}\nline\r\nbreak\ttab",
        f"{MARK}\\back\\slash\\",
        f"{MARK}{{brace}} {{{{x}}}} {{0}} ${{HOME}}",
        f"$(touch {canary})`touch {canary}`{MARK}",
        f"../../up/../{MARK}/../down",
        f"/{MARK}",
        f"{MARK}%s %d %(x)s %",
        f"{MARK} 😀 ü \u202e",
        f"<script>{MARK}</script><img src=x onerror=alert(1)>",
        MARK + "a" * 10_000,
        f"{MARK}:0",
        f"^{MARK}",
        f" {MARK} ",
        f"=1+{MARK}",
        f"{MARK}.a.b",
        f"@{MARK}#?&;|~",
        f"${MARK}$ ^_{MARK}",
        f"[/{MARK}][bold red]\\[x]",
    ]

"""Rows that cannot be used: counted, a few kept as samples, fatal above a limit."""

from __future__ import annotations

from dataclasses import dataclass, field

from switchyard.components.errors import UserError
from switchyard.components.text.visible import in_line

SAMPLES = 20
_WIDTH = 200


@dataclass
class BadRows:
    """Collects what was wrong; `limit` is `data.max_bad_rows`."""

    limit: int
    count: int = 0
    samples: list[dict[str, str]] = field(default_factory=list)

    def add(self, path: str, reason: str, row: str = "", number: int = 1) -> None:
        """Counts `number` rows of `path` that are bad for `reason`; keeps the first few texts."""
        self.count += number
        if len(self.samples) < SAMPLES:
            self.samples.append({"file": path, "reason": reason, "row": row[:_WIDTH]})

    def check(self) -> None:
        """Raises UserError when there are more than allowed."""
        if self.count > self.limit:
            raise UserError(
                f"data: {self.count} bad row{'s' if self.count > 1 else ''}, data.max_bad_rows allows {self.limit}. "
                f"Mend the data, or raise data.max_bad_rows to leave such rows out. The first:\n{self.first(5)}"
            )

    def first(self, number: int) -> str:
        """Returns the first few of the samples, a line each."""
        return "\n".join(f"  {s['file']}: {s['reason']}{': ' * bool(s['row'])}{in_line(s['row'])}" for s in self.samples[:number])

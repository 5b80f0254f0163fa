"""Bad rows: a count, a few samples and the limit above which the run fails."""

from __future__ import annotations

from dataclasses import dataclass, field

from switchyard.components.errors import UserError
from switchyard.components.text.visible import in_line

SAMPLES = 20
_WIDTH = 200


@dataclass
class BadRows:
    """Bad rows of a run and the limit `data.max_bad_rows` (`limit`)."""

    limit: int
    count: int = 0
    samples: list[dict[str, str]] = field(default_factory=list)

    def add(self, path: str, reason: str, row: str = "", number: int = 1) -> None:
        """Adds `number` bad rows of `path` to the count; keeps the first `SAMPLES` as samples, cut to 200 characters."""
        self.count += number
        if len(self.samples) < SAMPLES:
            self.samples.append({"file": path, "reason": reason, "row": row[:_WIDTH]})

    def check(self) -> None:
        """Raises UserError when the count exceeds the limit."""
        if self.count > self.limit:
            raise UserError(
                f"data: {self.count} bad row{'s' if self.count > 1 else ''}, data.max_bad_rows allows {self.limit}. "
                f"Fix the data, or raise data.max_bad_rows to skip such rows. The first:\n{self.first(5)}"
            )

    def first(self, number: int) -> str:
        """Returns the first `number` samples, one per line."""
        return "\n".join(f"  {s['file']}: {s['reason']}{': ' * bool(s['row'])}{in_line(s['row'])}" for s in self.samples[:number])

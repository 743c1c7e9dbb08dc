"""The log of a run: records in memory, and one JSON object per line on disk."""

import json
import math
from pathlib import Path
from typing import Any

from srbook.files import atomic_path, naming

Record = dict[str, Any]


class TrainingLog:
    """Records of a run, each a dict with at least "step".

    Args:
        path: the JSONL file that follows the records; None keeps them in memory only.
        resume_at: records after this step are dropped, since a resumed run makes them again. 0 starts afresh.
    """

    def __init__(self, path: Path | None, resume_at: int = 0):
        self.path = path
        self.records: list[Record] = []
        if path is None:
            return
        if resume_at and path.is_file():
            self.records = [record for record in read_log(path) if record["step"] <= resume_at]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(map(_line, self.records)), encoding="utf-8")

    def add(self, record: Record) -> None:
        """Keep a record, and append it to the file."""
        self.records.append(record)
        if self.path is not None:
            with naming(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(_line(record))


def read_log(path: str | Path) -> list[Record]:
    """Records of a JSONL log. A last line that was cut short (a crash while writing) is left out.

    JSON has no figures that are not finite: they are null in the file, and NaN in the records. Any other line that is
    not a record is a ValueError.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number}: not a JSON record ({error})") from error
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise ValueError(f"{path}, line {number}: not a record with a step")
        records.append({name: math.nan if figure is None else figure for name, figure in record.items()})
    return records


def _line(record: Record) -> str:
    strict = {
        name: None if isinstance(figure, float) and not math.isfinite(figure) else figure
        for name, figure in record.items()
    }
    return json.dumps(strict, allow_nan=False) + "\n"

"""The log of a run: records in memory, and one JSON object per line on disk."""

import json
from pathlib import Path
from typing import Any

from srbook.files import atomic_path

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
            temporary.write_text("".join(json.dumps(record) + "\n" for record in self.records), encoding="utf-8")

    def add(self, record: Record) -> None:
        """Keep a record, and append it to the file."""
        self.records.append(record)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


def read_log(path: str | Path) -> list[Record]:
    """Records of a JSONL log. A last line that was cut short (a crash while writing) is left out.

    Any other line that is not JSON is a ValueError.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number}: not a JSON record ({error})") from error
    return records

"""Logs: one line of JSON for each record, on stdout, without anything a caller sent."""

import json
import logging
import sys
from datetime import UTC, datetime

from . import tracing


class JsonLines(logging.Formatter):
    """time, level, logger, message; then the record's `fields`, the trace, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
            **tracing.log_fields(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level: str) -> None:
    """Sends every logger of the process, uvicorn's too, through one handler."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

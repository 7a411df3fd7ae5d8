"""Dates as they appear in records and datasets."""

from datetime import UTC, datetime


def utc_now() -> str:
    """Return the time as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")

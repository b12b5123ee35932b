"""When a key ends: as people say it, and as ``expiry-time`` in authorized_keys has it."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime, timedelta, timezone

from mypaas_git.errors import KeyRefused, UsageError

MAX_EXPIRY_DAYS = 36500
_TIME = re.compile(r"([0-9]{8}(?:[0-9]{4}(?:[0-9]{2})?)?)(Z?)")


def parse_expiry(text: str, now: datetime | None = None) -> datetime:
    """When a key given ``text`` expires: ``90d``, ``12h``, ``2026-12-31`` or ``20261231``.

    A date means its first moment in the server's time zone, as in OpenSSH. Raises
    :class:`UsageError` for anything else and for a time that is not in the future.
    """
    now = (now or datetime.now(timezone.utc)).astimezone()
    expires = _expiry(text, now)
    if expires is None:
        shown = ascii(text[:40])
        raise UsageError(
            f"{shown} is not an expiry: give 90d, 12h, or a date such as 2030-12-31"
        )
    if expires <= now:
        raise UsageError(f"the expiry '{text}' is not in the future")
    return expires


def parse_time(text: str) -> datetime:
    """A time of OpenSSH's ``expiry-time``: YYYYMMDD[HHMM[SS]][Z], local without the Z.

    Raises :class:`KeyRefused`.
    """
    match = _TIME.fullmatch(text)
    if match:
        layout = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}[len(match[1])]
        with contextlib.suppress(ValueError, OverflowError, OSError):
            time = datetime.strptime(match[1], layout)
            return time.replace(tzinfo=timezone.utc) if match[2] else time.astimezone()
    raise KeyRefused(
        "expiry-time takes YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, and a Z for UTC"
    )


def format_time(moment: datetime) -> str:
    """``moment`` as :func:`parse_time` reads it, in UTC."""
    return f"{moment.astimezone(timezone.utc):%Y%m%d%H%M%S}Z"


def _expiry(text: str, now: datetime) -> datetime | None:
    span = re.fullmatch(r"([0-9]{1,7})([dh])", text)
    if span:
        hours = int(span[1]) * (24 if span[2] == "d" else 1)
        return now + timedelta(hours=hours) if hours <= MAX_EXPIRY_DAYS * 24 else None
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}", text):
        with contextlib.suppress(KeyRefused):
            return parse_time(text.replace("-", ""))
    return None

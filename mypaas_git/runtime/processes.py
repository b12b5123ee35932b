"""What the kernel tells of a container's processes, where they run on this host.

Sources: proc(5), "/proc/pid/status" and "/proc/pid/net"; the kernel's
Documentation/networking/proc_net_tcp.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Collection
from pathlib import Path

ESTABLISHED = "01"


def is_here(pid: int, container: str) -> bool:
    """Whether ``pid`` is a process of the container with this id, as we count processes.

    It is not when the engine runs on another host, or we in a container ourselves.
    """
    try:
        return container in Path(f"/proc/{pid}/cgroup").read_text("ascii", "replace")
    except OSError:
        return False


def connections(pid: int, ports: Collection[int]) -> int:
    """How many established TCP connections lead to ``ports`` where ``pid`` has its network."""
    return sum(
        _port(fields[1]) in ports
        for table in ("tcp", "tcp6")
        for fields in _rows(Path(f"/proc/{pid}/net/{table}"))
        if fields[3] == ESTABLISHED
    )


def heeds(pid: int, signal_name: str) -> bool:
    """Whether the process handles or awaits a signal such as ``SIGTERM`` or ``15``.

    The first process of a container gets no other signal but SIGKILL.
    """
    number = _number(signal_name)
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return True
    # An init, such as Docker's own, blocks all of them and takes one after the other.
    masks = re.findall(r"^Sig(?:Cgt|Blk):\s*([0-9a-f]+)$", status, re.MULTILINE)
    if not masks or number is None:
        return True
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def _rows(table: Path) -> list[list[str]]:
    try:
        lines = table.read_text("ascii", "replace").splitlines()[1:]
    except OSError:
        return []
    return [fields for line in lines if len(fields := line.split()) > 3]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _number(name: str) -> int | None:
    if name.isdigit():
        return int(name)
    try:
        return signal.Signals["SIG" + name.upper().removeprefix("SIG")].value
    except KeyError:
        return None

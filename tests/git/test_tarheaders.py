"""Headers from a pattern: the same bytes that ``tarfile`` makes."""

from __future__ import annotations

from tarfile import PAX_FORMAT, REGTYPE, TarInfo

import pytest

from mypaas_git.git.tarheaders import Headers


@pytest.mark.parametrize("when", [0, 1_700_000_000, (1 << 33) - 1])
@pytest.mark.parametrize("mode", [0o644, 0o755])
@pytest.mark.parametrize("size", [0, 1, 512, 8**11 - 1, 8**11])
@pytest.mark.parametrize(
    "path",
    ["a", "a b/c:d", "n\new", "x" * 99, "x" * 100, "x" * 101, "d/" * 60 + "f", "é/ü", "\udcff"],
)
def test_like_tarfile(path: str, size: int, mode: int, when: int) -> None:
    """Long and foreign names and huge sizes too, which take more than one block."""
    info = TarInfo(path)
    info.type, info.mode, info.size, info.mtime = REGTYPE, mode, size, when
    wanted = info.tobuf(PAX_FORMAT, "utf-8", "surrogateescape")
    assert Headers(when).file(path, mode, size) == wanted

"""Which lines of a Dockerfile are directives, and what they say."""

from __future__ import annotations

import codecs

import pytest

from mypaas_git.directives.lexer import MAX_BYTES, MAX_LINE, Fault, Line, lex
from mypaas_git.errors import DirectivesInvalid


def lines(dockerfile: bytes) -> list[Line]:
    """The directives of a Dockerfile whose lines have no fault."""
    found, faults = lex(dockerfile)
    assert faults == []
    return found


@pytest.mark.parametrize(
    "line",
    [
        "# mypaas.url=https://a.b",
        "#mypaas.url=https://a.b",
        "\t #\t mypaas.url=https://a.b",
        "# mypaas.url = https://a.b",
        "# mypaas.url\t=\thttps://a.b \t",
        '# mypaas.url="https://a.b"',
        "# mypaas.url = 'https://a.b' ",
        "# mypaas.url=https://a.b\r",
    ],
)
def test_spaces_and_matching_quotes_are_dropped(line: str) -> None:
    """Every way to space and quote a directive says the same."""
    assert lines(line.encode()) == [Line(1, "mypaas.url", "https://a.b")]


@pytest.mark.parametrize(
    "line",
    [
        "#--- mypaas.url=https://a.b",
        "## mypaas.url=https://a.b",
        "# # mypaas.url=https://a.b",
        "#- mypaas.url=https://a.b",
        "mypaas.url=https://a.b",
        "RUN x # mypaas.url=https://a.b",
        "# see mypaas.url=https://a.b",
        "# mypaas url=https://a.b",
        "# Mypaas.url=https://a.b",
        "\u00a0# mypaas.url=https://a.b",
        "#\u00a0mypaas.url=https://a.b",
        "\x0b# mypaas.url=https://a.b",
        "",
    ],
)
def test_other_lines_are_no_directives(line: str) -> None:
    """One '#', spaces or tabs, then 'mypaas.': whatever else stands there is not ours."""
    assert lines(line.encode()) == []


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("a=b", "a=b"),
        ("\"a'", "\"a'"),
        ('"', '"'),
        ('""', ""),
        ("", ""),
        ('" a "', " a "),
        ("\"'a'\"", "'a'"),
        ("A=é", "A=é"),
        ("a\u2028b\x85c", "a\u2028b\x85c"),
    ],
)
def test_value(raw: str, value: str) -> None:
    """Only the first '=' divides, only one pair of quotes goes, only a newline ends a line."""
    assert lines(f"# mypaas.env={raw}".encode()) == [Line(1, "mypaas.env", value)]


def test_numbers_count_every_line() -> None:
    """T37: a byte order mark and CRLF neither hide a line nor shift the count."""
    text = codecs.BOM_UTF8 + b"# mypaas.port=1\r\nFROM x\r\n\r\n# mypaas.scale=2\r\n"
    assert lines(text) == [Line(1, "mypaas.port", "1"), Line(4, "mypaas.scale", "2")]


def test_heredocs_are_read_like_the_rest() -> None:
    """T37: a line is a directive wherever it stands, so nothing has to guess at heredocs."""
    text = b"RUN <<EOF\n# mypaas.port=1\nEOF\n"
    assert lines(text) == [Line(2, "mypaas.port", "1")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"FROM x\0", "NUL"),
        (b"# mypaas.env=A=\0", "NUL"),
        (b"# mypaas.env=A=\xff", "UTF-8"),
        (b"# caf\xe9", "UTF-8"),
        (codecs.BOM_UTF16_LE, "UTF-8"),
        (b"# mypaas.env=A=" + b"x" * MAX_LINE, "bytes"),
        (b"RUN " + b"x" * MAX_LINE, "bytes"),
        (b"# mypaas.scale 3", "write '# mypaas.scale=value'"),
        (b"# mypaas.", "write '# mypaas.key=value'"),
    ],
)
def test_faulty_line(line: bytes, message: str) -> None:
    """T37: what is no text or no directive is a fault of its own line; the rest is read."""
    found, faults = lex(b"FROM x\n" + line + b"\n# mypaas.port=1")
    assert found == [Line(3, "mypaas.port", "1")]
    assert [fault.number for fault in faults] == [2]
    assert message in faults[0].message
    assert len(faults[0].message) < 200


def test_utf16_is_refused() -> None:
    """A file in UTF-16 is a fault, not a Dockerfile without directives."""
    _, faults = lex("# mypaas.port=1\n".encode("utf-16"))
    assert faults[0] == Fault(
        1, "a NUL byte, which no text has; save the Dockerfile as UTF-8 text"
    )


def test_longest_line_and_file() -> None:
    """A line of 65535 bytes and a file of 1 MiB are read, one byte more is not."""
    assert lines(b"#".ljust(MAX_LINE, b"x")) == []
    assert lines(b"\n" * MAX_BYTES) == []
    with pytest.raises(DirectivesInvalid, match="1048577 bytes"):
        lex(b"\n" * (MAX_BYTES + 1))

"""Every value's grammar, by tables of what is good and what is not."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mypaas_git.directives import values
from mypaas_git.directives.model import EnvVar, Healthcheck, Publish, Url, Volume
from mypaas_git.directives.values import BadValue, Scale

ANY_IPV4 = str(IPv4Address(0))
# Digits that int() reads and nobody means.
ODD_NUMBERS = [
    "\uff18\uff10",
    "\u0663",
    "1_000",
    "-1",
    "+1",
    " 1",
    "1 ",
    "1\n",
    "1e1",
    "0x10",
    "nan",
    "inf",
    "",
]


def refusal(parse: object, text: str) -> str:
    """The message of the refusal of ``text``: one printable line of bounded length."""
    assert callable(parse)
    with pytest.raises(BadValue) as caught:
        parse(text)
    message = str(caught.value)
    assert message.isprintable()
    assert message.isascii()
    assert len(message) < 400
    return message


@pytest.mark.parametrize("text", ["hello-world", "a", "0", "a" * 63])
def test_service(text: str) -> None:
    """Lower case letters, digits and hyphens, up to 63."""
    assert values.service(text) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Hello_World", "'hello-world' would do"),
        ("a.b", "'a-b' would do"),
        ("..", "is not a service name"),
        ("-rf", "'rf' would do"),
        ("../x", "'x' would do"),
        ("traefik", "reserved"),
        ("h\u0435llo", r"h\u0435llo"),
        ("a" * 300, "1 to 63"),
        ("a\n", "'a' would do"),
        ("", "is not a service name"),
    ],
)
def test_service_refused(text: str, hint: str) -> None:
    """T40: what reaches no path, command or label; the name that would do is told."""
    assert hint in refusal(values.service, text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://example.com", Url("https", "example.com")),
        ("http://example.com/", Url("http", "example.com", "/")),
        ("HTTPS://Example.COM/App", Url("https", "example.com", "/App")),
        ("https://example.com/app/", Url("https", "example.com", "/app")),
        ("https://example.com/a/b.c/~d", Url("https", "example.com", "/a/b.c/~d")),
        (
            "https://example.com/@me/a+b,c=d:e_-",
            Url("https", "example.com", "/@me/a+b,c=d:e_-"),
        ),
        ("http://localhost", Url("http", "localhost")),
        ("http://x.localhost/...", Url("http", "x.localhost", "/...")),
        ("https://xn--bcher-kva.example", Url("https", "xn--bcher-kva.example")),
        ("https://4u.example", Url("https", "4u.example")),
        ("HTTP://*.Example.com/x/", Url("http", "*.example.com", "/x")),
        (f"http://{'a' * 63}.b", Url("http", "a" * 63 + ".b")),
    ],
)
def test_url(text: str, url: Url) -> None:
    """Scheme and host are lower-cased, the final slash goes, the rest stays as it is."""
    assert values.url(text) == url


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("http://x`)||HostRegexp(`.+`", "not a host name"),
        ("http://x/`)||HostRegexp(`.+`)", "not a path"),
        ("http://x/a'b", "not a path"),
        ('http://x/a"b', "not a path"),
        ("http://x/a\\b", "not a path"),
        ("http://x/(a)", "not a path"),
        ("http://x/a|b", "not a path"),
        ("http://x/a&&b", "not a path"),
        ("http://x/{{.}}", "not a path"),
        ("http://x/a b", "not a path"),
        ("http://x/a\tb", "not a path"),
        ("http://x/a\nb", "not a path"),
        ("http://x/a\x7f", "not a path"),
        ("http://x/a\x00", "not a path"),
        ("http://x/" + "a" * 1000, "not a path"),
        ("http://x/../a", "'..'"),
        ("http://x/a/..", "'..'"),
        ("http://x/./a", "'.'"),
        ("http://x//a", "'//'"),
        ("http://x//", "'//'"),
        ("http://x/%2e%2e/a", "percent-escape"),
        ("http://x/a?b=c", "query"),
        ("http://x/a#b", "fragment"),
        ("http://x?b", "query"),
        ("http://x#b", "fragment"),
        ("http://user@x", "user name"),
        ("http://user:pass@x", "user name"),
        ("http://x:8080", "takes no port"),
        ("http://x:", "takes no port"),
        ("http://*", "a wildcard is one '*.'"),
        ("http://*.com", "a wildcard is one '*.'"),
        ("http://*.*.example.com", "a wildcard is one '*.'"),
        ("http://a.*.example.com", "a wildcard is one '*.'"),
        ("http://*a.example.com", "a wildcard is one '*.'"),
        ("http://*.a_b.example.com", "not a host name"),
        ("http://*.127.0.0.1", "IP address"),
        ("http://127.0.0.1", "IP address"),
        ("http://1", "IP address"),
        ("http://[::1]", "IP address"),
        ("http://b\u00fccher.example", "xn--"),
        ("http://ex\u0430mple.com", "xn--"),
        ("http\u017f://x", "xn--"),
        ("http://x/\u00fc", "ASCII"),
        ("http://", "not a host name"),
        ("http:///a", "not a host name"),
        ("http://a_b", "not a host name"),
        ("http://-a", "not a host name"),
        ("http://a-", "not a host name"),
        ("http://a..b", "not a host name"),
        ("http://.a", "not a host name"),
        ("http://a.", "not a host name"),
        ("http://a\tb", "not a host name"),
        ("http://a\n", "not a host name"),
        (f"http://{'a' * 64}.b", "not a host name"),
        ("http://" + "a." * 130 + "b", "not a host name"),
        ("ftp://x", "write http(s)://host[/path]"),
        ("example.com", "write http(s)://host[/path]"),
        ("http:/x", "write http(s)://host[/path]"),
        ("//x", "write http(s)://host[/path]"),
        (" http://x", "write http(s)://host[/path]"),
        ("", "write http(s)://host[/path]"),
    ],
)
def test_url_refused(text: str, hint: str) -> None:
    """T45, T46: nothing that a rule gives a meaning, nothing that a browser reads otherwise."""
    assert hint in refusal(values.url, text)


@given(
    st.text(alphabet=st.sampled_from("aZ0-._~+,=:@/%?#[]()'`\"|&!{}\\* \t\n\x00ü"), max_size=20)
)
@settings(max_examples=300, deadline=None)
def test_accepted_url_cannot_break_a_rule(tail: str) -> None:
    """T45: whatever is accepted is made of characters that no Traefik rule gives a meaning."""
    try:
        url = values.url("http://a" + tail)
    except BadValue:
        return
    assert not set(url.host + url.path) & set("`'\"\\()|&!{}*?#% \t\r\n\0")
    assert url.path.startswith("/")
    assert values.url(str(url)) == url


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("/srv/data:/data", Volume("/srv/data", "/data")),
        ("/srv/data/:/data/", Volume("/srv/data", "/data")),
        ("/srv//a/./b:/data//x", Volume("/srv/a/b", "/data/x")),
        ("/srv/data:/data:ro", Volume("/srv/data", "/data", True)),
        ("~:/data", Volume("~", "/data")),
        ("~/:/data", Volume("~", "/data")),
        ("~/a b/ü:/data", Volume("~/a b/ü", "/data")),
        ("~/data:/data:ro", Volume("~/data", "/data", True)),
        ("/:/data", Volume("/", "/data")),
        ("data:/data", Volume("data", "/data")),
        ("Data_1.x-y:/data:ro", Volume("Data_1.x-y", "/data", True)),
        ("a" * 63 + ":/data", Volume("a" * 63, "/data")),
        ("/...:/..a", Volume("/...", "/..a")),
    ],
)
def test_volume(text: str, volume: Volume) -> None:
    """Host directories and named volumes, with paths in one spelling."""
    assert values.volume(text) == volume


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "is not a volume"),
        ("/data", "is not a volume"),
        ("data", "is not a volume"),
        ("/a:/b:ro:z", "is not a volume"),
        ("/a:/b:rw", "the only one is 'ro'"),
        ("/a:/b:ro,z", "the only one is 'ro'"),
        ("/a:/b:RO", "the only one is 'ro'"),
        ("/a:/b:", "the only one is 'ro'"),
        ("/a/../b:/c", "must not hold '..'"),
        ("~/..:/c", "must not hold '..'"),
        ("/a:/c/../d", "must not hold '..'"),
        ("~user/a:/c", "starts with '/' or '~/'"),
        ("./a:/c", "starts with '/' or '~/'"),
        ("a/b:/c", "starts with '/' or '~/'"),
        ("-a:/c", "starts with '/' or '~/'"),
        (".a:/c", "starts with '/' or '~/'"),
        (":/c", "starts with '/' or '~/'"),
        (" a:/c", "starts with '/' or '~/'"),
        ("ä:/c", "starts with '/' or '~/'"),
        ("a" * 64 + ":/c", "starts with '/' or '~/'"),
        ("a:c", "must start with '/'"),
        ("a:", "must start with '/'"),
        ("a:~/c", "must start with '/'"),
        ("a:/", "cannot replace the container's '/'"),
        ("a://./", "cannot replace the container's '/'"),
        ("/a\x1b:/c", "control character"),
        ("/a:/c\n", "control character"),
        ("/a\x00:/c", "control character"),
        ("/a:/c\tro", "control character"),
        ("/" + "a" * 256 + ":/c", "too long"),
        ("/a" * 2001 + ":/c", "too long"),
    ],
)
def test_volume_refused(text: str, hint: str) -> None:
    """T43: no '..', no other options, nothing relative, no control characters."""
    assert hint in refusal(values.volume, text)


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("KEY=value", EnvVar("KEY", "value")),
        ("KEY", EnvVar("KEY", None)),
        ("KEY=", EnvVar("KEY", "")),
        ("KEY = value ", EnvVar("KEY", "value")),
        ('KEY=" a "', EnvVar("KEY", " a ")),
        ("KEY='a=b'", EnvVar("KEY", "a=b")),
        ("KEY=a=b==", EnvVar("KEY", "a=b==")),
        ("_k2=\u00fc \u2603", EnvVar("_k2", "\u00fc \u2603")),
        ('KEY={"a": "b"}', EnvVar("KEY", '{"a": "b"}')),
        ("mypaas_x=$HOME `x`", EnvVar("mypaas_x", "$HOME `x`")),
    ],
)
def test_env(text: str, variable: EnvVar) -> None:
    """A literal value, taken as it is but for outer spaces and quotes, or a bare key."""
    assert values.env(text) == variable


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "variable's name"),
        ("=value", "variable's name"),
        ("1KEY=x", "variable's name"),
        ("MY-KEY=x", "variable's name"),
        ("MY KEY=x", "variable's name"),
        ("K\u00c9Y=x", "variable's name"),
        ("KEY\n", "variable's name"),
        ("K\u212aY", "variable's name"),
        ("MYPAAS_SCALE=3", "reserved"),
        ("MYPAAS_X", "reserved"),
        ("KEY=a\nb", "control character"),
        ("KEY=a\tb", "control character"),
        ("KEY=\x00", "control character"),
        ("KEY=\x1b[31m", "control character"),
        ("KEY=\x9b", "control character"),
    ],
)
def test_env_refused(text: str, hint: str) -> None:
    """T41: keys that are none or ours, values with control characters."""
    assert hint in refusal(values.env, text)


def test_env_refusal_keeps_the_secret() -> None:
    """T57: what is wrong with a value is told without the value."""
    assert "hunter2" not in refusal(values.env, "KEY=hunter2\x1b")


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("80", 80), ("65535", 65535)])
def test_port(text: str, port: int) -> None:
    """1 to 65535."""
    assert values.port(text) == port


@pytest.mark.parametrize(
    "text", [*ODD_NUMBERS, "0", "080", "65536", "9" * 5000, "http", "80.0"]
)
def test_port_refused(text: str) -> None:
    """T39: plain ASCII digits only, and in range."""
    assert "whole number from 1 to 65535" in refusal(values.port, text)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("80", [Publish(80)]),
        (":80", [Publish(80)]),
        ("0:80", [Publish(80)]),
        ("8080:80", [Publish(80, 8080)]),
        ("8080:80/UDP", [Publish(80, 8080, "", "udp")]),
        ("8080:80/sctp", [Publish(80, 8080, "", "sctp")]),
        ("127.0.0.1:8080:80/tcp", [Publish(80, 8080, "127.0.0.1")]),
        ("127.0.0.1::80", [Publish(80, 0, "127.0.0.1")]),
        ("0.0.0.0:8080:80", [Publish(80, 8080, ANY_IPV4)]),
        ("[::1]:80:80", [Publish(80, 80, "::1")]),
        ("[0:0::1]::80/udp", [Publish(80, 0, "::1", "udp")]),
        ("80-82", [Publish(80), Publish(81), Publish(82)]),
        ("9000-9001:80-81", [Publish(80, 9000), Publish(81, 9001)]),
        ("9000-9000:80-80", [Publish(80, 9000)]),
        (
            "[::1]:9000-9001:80-81/udp",
            [Publish(80, 9000, "::1", "udp"), Publish(81, 9001, "::1", "udp")],
        ),
        ("9000-9999:80", [Publish(80, 9000, host_port_end=9999)]),
    ],
)
def test_publish(text: str, items: list[Publish]) -> None:
    """Docker's grammar, ranges spelt out, a range for one container port kept as such."""
    assert values.publish(text) == tuple(items)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "not a port to publish"),
        ("http", "not a port to publish"),
        ("80/", "not a port to publish"),
        ("8080:", "not a port to publish"),
        ("8080:80:80:80", "not a port to publish"),
        ("127.0.0.1:80", "not a port to publish"),
        ("localhost:80:80", "not a port to publish"),
        ("::1:80:80", "not a port to publish"),
        (" 80", "not a port to publish"),
        ("80\n", "not a port to publish"),
        ("\uff18\uff10:80", "not a port to publish"),
        ("80-", "not a port to publish"),
        ("-80", "not a port to publish"),
        ("1_000:80", "not a port to publish"),
        ("80/icmp", "not a protocol"),
        ("300.0.0.1:80:80", "not an IP address"),
        ("127.0.0.01:80:80", "not an IP address"),
        ("8080::80", "not an IP address"),
        ("[127.0.0.1]:80:80", "not an IP address"),
        ("[fe80::1%eth0]:80:80", "not an IP address"),
        ("[]:80:80", "not an IP address"),
        ("0", "not a port"),
        ("65536:80", "not a port"),
        ("80:65536", "not a port"),
        ("080:80", "not a port"),
        ("9" * 5000, "not a port"),
        ("82-80", "ends before it starts"),
        ("9001-9000:80", "ends before it starts"),
        ("9000-9002:80-81", "different length"),
        ("9000:80-81", "different length"),
        ("1-257", "more than the 256 ports"),
        ("1-65535:1-65535", "more than the 256 ports"),
    ],
)
def test_publish_refused(text: str, hint: str) -> None:
    """T39, T44: ports that are none, addresses that are none, ranges without end."""
    assert hint in refusal(values.publish, text)


@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("0", Scale(0, "roll")),
        ("1", Scale(1, "roll")),
        ("2 roll", Scale(2, "roll")),
        ("2 \t safe", Scale(2, "safe")),
        ("100", Scale(100, "roll")),
    ],
)
def test_scale(text: str, scale: Scale) -> None:
    """A number, then optionally how releases take over."""
    assert values.scale(text) == scale


@pytest.mark.parametrize(
    "text",
    [
        *ODD_NUMBERS,
        "101",
        "999999",
        "01",
        "1.0",
        "2safe",
        "2 SAFE",
        "2 safe roll",
        "2,safe",
        "2\xa0safe",
        "safe",
        "roll 2",
        "0 safe",
        "0 roll",
    ],
)
def test_scale_refused(text: str) -> None:
    """T39: not a number, too many, an unknown mode, a mode that does nothing."""
    refusal(values.scale, text)


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("/", Healthcheck("/")),
        ("/health/", Healthcheck("/health/", 10.0, 2.0)),
        ("/health?full=1&x=%20", Healthcheck("/health?full=1&x=%20")),
        ("/health 5s", Healthcheck("/health", 5.0, 2.0)),
        ("/health  5s\t500ms", Healthcheck("/health", 5.0, 0.5)),
        ("/health 1m 1.5s", Healthcheck("/health", 60.0, 1.5)),
    ],
)
def test_healthcheck(text: str, check: Healthcheck) -> None:
    """A path, taken as it is, and up to two durations."""
    assert values.healthcheck(text) == check


@pytest.mark.parametrize(
    "text",
    [
        "",
        "health",
        "10s",
        "/a 10",
        "/a 10s 2s 1s",
        "/a b",
        "//a",
        "/a//b",
        "/a\xa010s",
        "/a\n",
        "/a\x00",
        "/`",
        "/a'",
        "/ü",
        "http://x/",
        "/a,10s 2",
        "/" + "a" * 1000,
    ],
)
def test_healthcheck_refused(text: str) -> None:
    """Not a path, characters that no request line takes, durations without a unit."""
    refusal(values.healthcheck, text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10.0),
        ("500ms", 0.5),
        ("10ms", 0.01),
        ("1m", 60.0),
        ("1.5s", 1.5),
        ("60m", 3600.0),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    """A number and its unit."""
    assert values.duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *ODD_NUMBERS,
        *(f"{each}s" for each in ODD_NUMBERS),
        "10",
        "10 s",
        "10S",
        "1h",
        "10us",
        "0s",
        "9ms",
        "61m",
        "9999999999s",
        ".5s",
        "1.s",
        "1m30s",
        "1e3s",
    ],
)
def test_duration_refused(text: str) -> None:
    """T39: no unit, an odd number, too short to be a wait or too long to be one."""
    refusal(values.duration, text)


@pytest.mark.parametrize(
    ("text", "cpus"), [("1", 1.0), ("0.5", 0.5), (".5", 0.5), ("0.01", 0.01), ("1024", 1024.0)]
)
def test_maxcpu(text: str, cpus: float) -> None:
    """A plain decimal number."""
    assert values.maxcpu(text) == cpus


@pytest.mark.parametrize(
    "text",
    [
        *ODD_NUMBERS,
        "0",
        "0.0",
        "0.001",
        "1025",
        "1.",
        ".",
        "1,5",
        "-0.5",
        "NaN",
        "infinity",
        "9" * 400,
        "50%",
        "1/2",
        "\uff10.5",
    ],
)
def test_maxcpu_refused(text: str) -> None:
    """T39: float() would have read many of these."""
    refusal(values.maxcpu, text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("6m", 6 << 20),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("2g", 2 << 30),
        ("2G", 2 << 30),
        ("6144k", 6 << 20),
        ("6291456b", 6 << 20),
        ("6291456", 6 << 20),
        ("1048576g", 1 << 50),
    ],
)
def test_maxmem(text: str, size: int) -> None:
    """A whole number and Docker's units, which count in 1024."""
    assert values.maxmem(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *ODD_NUMBERS,
        *(f"{each}g" for each in ODD_NUMBERS),
        "0",
        "512",
        "5m",
        "6143k",
        "999999t",
        "1048577g",
        "512mb",
        "512 m",
        "1.5g",
        "512MiB",
        "512\u212a",
        "9" * 400,
        "m",
    ],
)
def test_maxmem_refused(text: str) -> None:
    """T39: odd numbers, unknown units, less than Docker's least, more than any host has."""
    refusal(values.maxmem, text)

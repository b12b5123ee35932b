"""A Dockerfile becomes a ServiceSpec, or all of its faults at once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mypaas_git.directives import (
    DIRECTIVES,
    EnvVar,
    Healthcheck,
    Publish,
    ServiceSpec,
    Url,
    Volume,
    parse_dockerfile,
)
from mypaas_git.directives.model import Redirect
from mypaas_git.errors import DirectivesInvalid
from mypaas_git.names import ServiceName

HELLO = ServiceName("hello")


def parse(*directives: str) -> ServiceSpec:
    """The spec of a Dockerfile with these directives, from line 2 on."""
    text = "\n".join(["FROM scratch", *(f"# mypaas.{each}" for each in directives)])
    return parse_dockerfile(text.encode(), default_service=HELLO)


def refuse(*directives: str) -> DirectivesInvalid:
    """The refusal of a Dockerfile with these directives, from line 2 on."""
    with pytest.raises(DirectivesInvalid) as caught:
        parse(*directives)
    return caught.value


def test_no_directives() -> None:
    """A Dockerfile without directives is a service named for its repository."""
    spec = parse_dockerfile(b"FROM registry:5000/app:1\n", default_service=HELLO)
    assert spec == ServiceSpec(HELLO)
    assert parse_dockerfile(b"", default_service=HELLO) == ServiceSpec(HELLO)


def test_every_directive() -> None:
    """Each directive reaches its field of the spec, repeatable ones in their order."""
    spec = parse(
        "service=hello",
        "url=https://example.com",
        "url=https://www.example.com/app/",
        "redirect=http://example.org -> https://example.com",
        "stripprefix=true",
        "auth=USERS",
        "sticky=true",
        "volume=~/data:/data",
        "volume=cache:/cache:ro",
        "env=A=1",
        "env=TOKEN",
        "port=8000",
        "publish=2525:25",
        "publish=5000-5001:5000-5001/udp",
        "healthcheck=/ok 1s 500ms",
        "maxcpu=0.5",
        "maxmem=64m",
    )
    assert spec == ServiceSpec(
        service=HELLO,
        urls=(Url("https", "example.com"), Url("https", "www.example.com", "/app")),
        redirects=(Redirect(Url("http", "example.org"), Url("https", "example.com")),),
        stripprefix=True,
        auth="USERS",
        sticky=True,
        volumes=(Volume("~/data", "/data"), Volume("cache", "/cache", True)),
        env=(EnvVar("A", "1"), EnvVar("TOKEN", None)),
        port=8000,
        publish=(
            Publish(25, 2525),
            Publish(5000, 5000, "", "udp"),
            Publish(5001, 5001, "", "udp"),
        ),
        healthcheck=Healthcheck("/ok", 1.0, 0.5),
        maxcpu=0.5,
        maxmem=64 << 20,
    )


def test_h2c_has_no_path_to_check() -> None:
    """What speaks HTTP/2 alone is ready when it does; a path cannot be asked for."""
    assert parse("protocol=h2c").protocol == "h2c"
    assert parse("protocol=http", "healthcheck=/up").protocol == "http"
    error = refuse("protocol=h2c", "healthcheck=/up")
    assert error.details[0].startswith("line 3: mypaas.healthcheck asks for a path over HTTP/1")
    assert "write http, or h2c" in str(refuse("protocol=https"))


def test_scale() -> None:
    """Scale fills the number and the mode."""
    spec = parse("scale=2 safe")
    assert (spec.scale, spec.scale_mode, spec.replicas) == (2, "safe", 2)


def test_all_faults_at_once_in_line_order() -> None:
    """One line for people, one detail a fault, in the order of the Dockerfile."""
    error = refuse(
        "ulr=x", "port=80", "port=0", "url=http://x`", "maxmem=1m", "zzzz=1", "scale 3"
    )
    assert str(error) == (
        "Dockerfile line 2: unknown directive 'mypaas.ulr', did you mean 'mypaas.url'? "
        "(and 5 more)"
    )
    starts = [
        "line 2: unknown directive",
        "line 4: mypaas.port stands on line 3 already",
        "line 5: mypaas.url: 'x`' is not a host name",
        "line 6: mypaas.maxmem: '1m' is out of range",
        "line 7: unknown directive 'mypaas.zzzz', known are service, url,",
        "line 8: a directive without '='",
    ]
    assert len(error.details) == len(starts)
    for detail, start in zip(error.details, starts, strict=True):
        assert detail.startswith(start)


def test_faults_of_text_and_directives_together() -> None:
    """A line that is no text takes its place among the other faults."""
    with pytest.raises(DirectivesInvalid) as caught:
        parse_dockerfile(b"# mypaas.a=1\n\xff\n# mypaas.b=1", default_service=HELLO)
    assert [each[:7] for each in caught.value.details] == ["line 1:", "line 2:", "line 3:"]


def test_one_fault() -> None:
    """A single fault needs no count."""
    error = refuse("port=http")
    assert str(error) == (
        "Dockerfile line 2: mypaas.port: 'http' is not a port; write a whole number "
        "from 1 to 65535"
    )
    assert error.details == (str(error).removeprefix("Dockerfile "),)


@pytest.mark.parametrize(
    "key", [key for key, each in DIRECTIVES.items() if not each.repeatable]
)
def test_repeated_single_valued(key: str) -> None:
    """T38: whether its first value was good or bad, a second one is a fault."""
    for value in ("hello", "1", "", "/"):
        name = key.removeprefix("mypaas.")
        details = refuse(f"{name}={value}", "url=http://a", f"{name}={value}").details
        assert details[-1] == f"line 4: {key} stands on line 2 already; keep one of them"


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("url=http://a/", "url=HTTP://A", "the url http://a"),
        ("volume=x:/data", "volume=~/y:/data/:ro", "the container directory '/data'"),
        ("env=A=1", "env=A", "the variable A"),
        ("publish=80:80", "publish=80:81", "the host port 80/tcp"),
        ("publish=80:80", "publish=79-81:79-81", "the host port 80/tcp"),
        ("publish=1.1.1.1:80:80", "publish=1.1.1.1:80:81", "the host port 80/tcp of 1.1.1.1"),
        ("publish=1.1.1.1:80:80", "publish=80:81", "the host port 80/tcp"),
        ("publish=80", "publish=80/tcp", "any port for the container port 80/tcp"),
        ("publish=1-9:80", "publish=1-9:80", "1-9 for the container port 80/tcp"),
    ],
)
def test_duplicates(first: str, second: str, what: str) -> None:
    """Two lines that want the same are a fault that names both lines."""
    error = refuse(first, second)
    assert len(error.details) == 1
    assert what in error.details[0]
    assert {"2", "3"} <= set(error.details[0].replace(":", " ").split())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("url=http://a", "url=https://a"),
        ("url=http://a", "url=http://a/b"),
        ("volume=x:/data", "volume=x:/data/x"),
        ("env=A=1", "env=a=1"),
        ("publish=80:80", "publish=80:80/udp"),
        ("publish=1.1.1.1:80:80", "publish=1.1.1.2:80:80"),
        ("publish=80", "publish=81"),
        ("publish=1-9:80", "publish=11-19:80"),
    ],
)
def test_no_duplicates(first: str, second: str) -> None:
    """What only looks alike is two things."""
    parse(first, second)


def test_fixed_host_port_cannot_scale() -> None:
    """The old and the new container would both need the port."""
    error = refuse("publish=25", "publish=2525:25", "scale=1")
    assert len(error.details) == 1
    assert error.details[0].startswith("line 3: mypaas.publish: two containers cannot share")
    assert "mypaas.scale=0" in error.details[0]
    parse("publish=25", "publish=2525-2530:25", "scale=1")
    parse("publish=2525:25", "scale=0")


def test_number_of_items_is_bounded() -> None:
    """256 of a kind are taken; what goes beyond is one fault."""
    assert len(parse(*(f"url=http://a/{n}" for n in range(256))).urls) == 256
    details = refuse(*(f"url=http://a/{n}" for n in range(300))).details
    assert details == ("line 258: mypaas.url: a service has at most 256 of them",)
    details = refuse("publish=1-200", "publish=201-257").details
    assert details == ("line 3: mypaas.publish: a service has at most 256 of them",)


def test_number_of_details_is_bounded() -> None:
    """What is no Dockerfile at all does not fill the pusher's screen."""
    error = refuse(*["x=1"] * 1000)
    assert len(error.details) == 101
    assert error.details[-1] == "and 900 more"
    assert str(error).endswith("(and 999 more)")


def test_another_service() -> None:
    """A Dockerfile sent to the wrong remote names both services and both ways out."""
    error = refuse("service=other")
    assert str(error).startswith("Dockerfile line 2: mypaas.service is 'other'")
    for part in ("'hello'", "git remote set-url mypaas", "/other'", "write 'hello'"):
        assert part in str(error)


def test_service_when_not_pinned() -> None:
    """Where the sender names no service, the Dockerfile decides and the default fills in."""
    text = b"# mypaas.service=other"
    assert parse_dockerfile(text, default_service=HELLO, pinned=False).service == "other"
    assert parse_dockerfile(text, default_service=None).service == "other"
    assert parse_dockerfile(b"", default_service=HELLO, pinned=False).service == "hello"


def test_no_service() -> None:
    """Without a name from either side there is nothing to deploy."""
    with pytest.raises(DirectivesInvalid) as caught:
        parse_dockerfile(b"", default_service=None)
    assert str(caught.value) == (
        "the Dockerfile names no service; add a line '# mypaas.service=my-app'"
    )
    with pytest.raises(DirectivesInvalid, match=r"^Dockerfile line 1: mypaas.service: '_'"):
        parse_dockerfile(b"# mypaas.service=_", default_service=None)


VALUES = st.one_of(
    st.sampled_from(
        [
            "hello",
            "https://a.b/c/",
            "~/a:/b",
            "name:/b:ro",
            "A=b",
            "TOKEN",
            "80",
            "8080:80",
            "[::1]:80-90:80-90/udp",
            "2 safe",
            "0",
            "/h 10s 2s",
            "0.5",
            "512m",
            '"',
            "''",
        ]
    ),
    st.text(max_size=30),
    st.from_regex(r"(http://)?[a-z0-9.:/~=\[\] -]{0,20}", fullmatch=True),
)
LINES = st.builds(
    lambda mark, key, value: f"{mark}{key}={value}",
    st.sampled_from(["# ", "#", "\t#\t", "##", "#--- "]),
    st.one_of(st.sampled_from(list(DIRECTIVES)), st.text(max_size=9).map("mypaas.".__add__)),
    VALUES,
)
DOCKERFILES = st.one_of(
    st.binary(),
    st.text().map(str.encode),
    st.lists(st.one_of(LINES, st.text(max_size=20)), max_size=6).map("\n".join).map(str.encode),
)


def outcome(
    text: bytes, default: ServiceName | None, *, pinned: bool
) -> ServiceSpec | DirectivesInvalid:
    """What comes of a Dockerfile; any other exception fails the test."""
    try:
        return parse_dockerfile(text, default_service=default, pinned=pinned)
    except DirectivesInvalid as error:
        return error


def from_ledger(spec: ServiceSpec) -> ServiceSpec:
    """The spec after it was written to the ledger and read back."""
    return ServiceSpec.from_dict(json.loads(json.dumps(spec.to_dict())))


@given(DOCKERFILES, st.sampled_from([None, HELLO]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_anything_is_a_spec_or_invalid(
    text: bytes, default: ServiceName | None, pinned: bool
) -> None:
    """Whatever is sent, the answer is a spec that survives the ledger, or the faults."""
    result = outcome(text, default, pinned=pinned)
    if isinstance(result, ServiceSpec):
        assert from_ledger(result) == result
    else:
        assert result.details
        assert all(line.isprintable() for line in (str(result), *result.details))


@given(st.sampled_from(list(DIRECTIVES)), VALUES)
@settings(max_examples=300, deadline=None)
def test_any_value_is_taken_or_refused_with_its_line(key: str, value: str) -> None:
    """A single directive is a spec that survives the ledger, or one fault on its line."""
    line = f"# {key}={value}".partition("\n")[0]
    result = outcome(b"\n" + line.encode(), HELLO, pinned=False)
    if isinstance(result, ServiceSpec):
        assert from_ledger(result) == result
    else:
        assert [detail[:8] for detail in result.details] == ["line 2: "]


def test_redirects_that_are_none() -> None:
    """They lead to a url of the service, from what is none; each fault has its line."""
    told = refuse(
        "url=https://a.test",
        "redirect=https://www.a.test -> https://b.test",
        "redirect=https://a.test -> https://a.test",
        "redirect=https://c.test",
        "redirect=https://d.test -> nowhere",
        "redirect=https://e.test -> https://a.test",
        "redirect=https://e.test -> https://a.test",
        "redirect=https://f.test -> https://*.a.test",
    )
    assert [each[:6] for each in told.details] == [f"line {n}" for n in (3, 4, 5, 6, 8, 9)]
    assert "https://b.test is no url of this service; add '# mypaas.url=" in told.details[0]
    assert "https://a.test stands on line 2 as a url of the service" in told.details[1]
    assert "is not a redirect; write FROM -> TO, such as" in told.details[2]
    assert "a redirect from https://e.test stands on line 7 already" in told.details[4]
    assert "leads to a wildcard; name one host" in told.details[5]


def test_what_takes_a_url() -> None:
    """Without one there is nothing to guard, to strip or to stick to."""
    told = refuse("auth=USERS", "sticky=true", "stripprefix=true")
    assert len(told.details) == 3
    assert all("the service has no url" in each for each in told.details)
    told = refuse("url=http://a.test", "stripprefix=true")
    assert "no url has a path to strip, such as 'http://a.test/app'" in told.message
    assert not parse("sticky=false", "stripprefix=false").sticky


@pytest.mark.parametrize("value", ["alice:secret", "USERS=alice:secret", "MYPAAS_X", "1x"])
def test_users_do_not_stand_in_a_dockerfile(value: str) -> None:
    """They belong into a secret, and nothing of them is shown."""
    told = refuse("url=http://a.test", f"auth={value}")
    assert "mypaas config set" in told.message
    assert "alice" not in told.message


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "USERS has no value"),
        ({"USERS": ""}, "USERS: its value holds no user:password"),
        ({"USERS": "alice:x\nhunter2"}, "USERS: line 2 of its value is not user:password"),
    ],
)
def test_the_value_of_auth(values: dict[str, str], why: str) -> None:
    """A secret that is missing, or no list of users, is a fault of its line."""
    text = b"# mypaas.url=http://a.test\n# mypaas.auth=USERS\n# mypaas.env=OTHER\n"
    with pytest.raises(DirectivesInvalid) as caught:
        parse_dockerfile(text, default_service=HELLO, value_of=lambda _, key: values.get(key))
    auth, env = caught.value.details
    assert auth.startswith("line 2: mypaas.auth: ")
    assert why in auth
    assert "hunter2" not in auth
    assert env.startswith("line 3: mypaas.env: OTHER has no value")


def test_a_spec_of_an_older_version() -> None:
    """What the ledger kept before there were redirects is read as it was meant."""
    spec = parse("url=http://a.test")
    old = spec.to_dict()
    for key in ("redirects", "stripprefix", "auth", "sticky", "users"):
        del old[key]
    assert ServiceSpec.from_dict(json.loads(json.dumps(old))) == spec

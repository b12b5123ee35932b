"""Dockerfiles as people write them, at which nothing is wrong."""

from __future__ import annotations

import pytest

from mypaas_git.directives.images import ImageRules, fault_of, uses
from mypaas_git.directives.labels import label_faults
from mypaas_git.directives.lexer import lex
from mypaas_git.names import ServiceName

HARMLESS = {
    "two stages and a version": """\
# syntax=docker/dockerfile:1
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements.txt
FROM python:${PYTHON}-slim
COPY --from=build --chown=app:app --link /src /src
CMD ["python", "-m", "app"]
""",
    "variables made of variables": """\
ARG VERSION=3.12
ARG VARIANT
ARG IMAGE="python:${VERSION}-slim"
ARG REGISTRY='ghcr.io' OWNER=me
FROM ${IMAGE}${VARIANT:+-x}
FROM $REGISTRY/$OWNER/app:${TAG:-latest}
""",
    "a variable of no use above FROM": "ARG PACKAGES=\"git curl\" AUTHOR='Zoë'\nFROM x\n",
    "cross compiling": """\
FROM --platform=$BUILDPLATFORM golang:1.22 AS build
ARG TARGETOS TARGETARCH
RUN GOOS=$TARGETOS GOARCH=${TARGETARCH} go build -o /app
FROM --platform=${TARGETPLATFORM} alpine
COPY --from=build /app /app
""",
    "a stage for each platform": """\
FROM alpine AS base-amd64
FROM alpine AS base-arm64
FROM base-${TARGETARCH}
""",
    "a digest": f"FROM python:3.12@sha256:{'0' * 64}\n",
    "quotes that do nothing": """\
FROM "python:3.12" AS build
FROM python:3.12
COPY --from="build" --chown="app:app" "/a b" /x
""",
    "stages by number and an image": """\
FROM node:22
FROM nginx
COPY --from=0 /app/dist /usr/share/nginx/html
COPY --from=busybox:1.36 /bin/busybox /bin/busybox
""",
    "small letters": "from python as build\nrun true\nfrom build\ncopy --from=build /a /b\n",
    "secrets, ssh and files of the host": """\
FROM x
RUN --mount=type=secret,id=npmrc,target="/root/.npmrc",required=true npm ci
RUN --mount=type=ssh git clone git@example.com:a/b
RUN --mount=type=bind,source=.,target=/src,rw --mount=type=tmpfs,target=/tmp make
RUN --mount=type=cache,id=apt-${TARGETARCH},sharing=locked,target=/var/cache/apt true
RUN --network=none --mount=type=cache,target=/root/.cache true
""",
    "flags of COPY and ADD": """\
FROM x
COPY --chown=${UID:-1000}:1000 --chmod=u=rwX,go=rX . /app
COPY --exclude=*.md --parents ./a/*/b /x/
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d \\
    https://example.com/x.tar.gz /
ADD --keep-git-dir=true https://github.com/a/b.git /b
""",
    "options of a command": """\
FROM x
RUN pip install --from=foo --mount=type=bind,from=mypaas/shop bar
RUN echo "--from=x" && dnf --installroot=/x --setopt=a=\\"b\\" install c
CMD ["serve", "--from=mypaas/shop"]
ENTRYPOINT exec serve --from=mypaas/shop
""",
    "a script": """\
FROM x
RUN <<EOF
set -e
for each in a b; do
  echo "$each" \\
    >> list
done
EOF
RUN <<-'END' bash
\tcat ${A:-x} | sed 's/"//'
\tEND
""",
    "files": """\
FROM nginx
COPY <<"EOF" /etc/nginx/conf.d/default.conf
server { listen 80; location / { try_files $uri $uri/ =404; } }
EOF
COPY <<one <<two.txt /x/
it's "one
one
two
two.txt
RUN cat <<EOF > /etc/$NAME/${FILE}.conf
x = "${X:-1}"
EOF
RUN 3<<A 4<<B cat /dev/fd/3
a
A
b
B
""",
    "SQL and Python in a heredoc": """\
FROM x
RUN psql <<SQL
SELECT *
FROM users;
SELECT *
FROM (
  SELECT 1
) AS u;
SQL
COPY <<PY /x.py
from a import b
from . import (
    c,
)
add = 1 << 2
PY
""",
    "no heredocs": """\
FROM x
RUN cat <<< "here" && echo $((1<<2)) $(( 1 << 2 )) "1 <<2" '<<X'
RUN bash -c "cat << EOF"
RUN ["sh", "-c", "cat <<'EOF'"]
RUN echo it\\'s && test $((x<<y)) -gt 3
""",
    "comments in between": """\
# mypaas.service=app
FROM x

RUN apt-get update && \\
    # what it needs
    apt-get install -y git \\

      curl \\
  # the end
    && rm -rf /var/lib/apt/lists/*
# COPY --from=mypaas/shop / /
""",
    "a backtick for Windows' sake": """\
# escape=`
FROM x AS build
RUN a `
    && b
COPY a C:\\b
FROM build
""",
    "its own signs": """\
# Für Ärger sorgt à, 例え, … und \u00a0
FROM x
LABEL maintainer="Zoë Å <z@example.com>" note='à la \u00a0carte'
ENV GREETING="naïve café" NAME=Ångström
RUN echo "… à \u00a0 ø" && echo ÀÅ
MAINTAINER José
""",
    "Windows' lines": (
        "\ufeff# a\r\nFROM x AS b\r\nRUN a \\\r\n  b\r\nFROM b\r\nRUN <<E\r\na\r\nE\r\n"
    ),
    "tabs": "\tFROM\tx\tAS\tbuild\n\tRUN\t--mount=type=cache,target=/x\ttrue\nFROM build\n",
    "everything else": """\
FROM x
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
HEALTHCHECK --interval=30s --timeout=3s CMD curl -f http://localhost/ || exit 1
HEALTHCHECK NONE
EXPOSE 80/tcp 443
VOLUME ["/data"]
USER 1000:1000
STOPSIGNAL SIGTERM
WORKDIR /a b
ENTRYPOINT ["/bin/sh"]
CMD []
""",
    "for those who build upon it": """\
FROM x
ONBUILD COPY --chown=app . /app
ONBUILD ARG NODE_ENV="say \\"production\\""
ONBUILD RUN --mount=type=cache,target=/x npm ci
ONBUILD RUN <<EOF
true
EOF
""",
    "variables of a stage": """\
FROM x
ARG A="a \\"b\\"" B=c\\ d
ARG C=${A:-${B}}
ARG A
ENV PATH="$PATH:/x" D=${C%.*}
""",
    "awk, sed and friends": r"""
FROM x
RUN awk '{ print $1 "\t" $2 }' < a | sed -e 's/\(.*\)/"\1"/' -e "s/'/\"/" > b
RUN printf '%s\n' "a" 'b' >> c; [ "${A#*x}" = "${B/x/y}" ] || true
RUN set -x; X="${X:-"y z"}"; echo "$X" \
 && echo '\' "\\" \\
CMD exec "$0" "$@"
""",
    "nothing": "FROM scratch\nCOPY app /\n",
    "an official builder by its digest": (
        f"#syntax=docker.io/docker/dockerfile:1.7-labs@sha256:{'0' * 64}\nFROM x\n"
    ),
    "lint": "# check=skip=all\n# escape=\\\n#!/usr/bin/docker\nFROM x\n",
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_nothing_is_wrong(kind: str) -> None:
    """It raises no fault, of images, labels or lines."""
    text = HARMLESS[kind].encode()
    used, faults = uses(text)
    assert [*faults, *label_faults(text), *lex(text)[1]] == []
    app, rules = ServiceName.parse("app"), ImageRules("mypaas")
    assert not any(fault_of(use.reference, app, rules) for use in used)


def test_there_are_many() -> None:
    """Enough kinds that a reading which refuses too much is found out."""
    assert len(HARMLESS) >= 25

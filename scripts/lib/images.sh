# shellcheck shell=bash
# Base images: pulled where that is possible, else built from Debian packages.

PYTHON_BASE=mypaas-base/python-bookworm
TEST_BASE=mypaas-test/busybox

have_image() { docker image inspect "$1" >/dev/null 2>&1; }

# python_image NAME [unpulled]: an image of that name that has Python and pip.
python_image() {
    ! have_image "$1" || return 0
    if [ "${2:-}" != unpulled ] && pull "$1"; then
        return
    fi
    build_python_base
    detail "Debian 12 with its Python stands in for $1"
    docker tag "$PYTHON_BASE" "$1"
}

pull() {
    say "Pulling $1"
    if timeout 120 docker pull -q "$1" >"$LOGS/pull.log" 2>&1 </dev/null; then
        return 0
    fi
    detail "cannot be pulled: $(tail -n 1 "$LOGS/pull.log")"
    return 1
}

build_python_base() {
    (
        flock 9 # two scripts in one clone
        have_image $PYTHON_BASE || debootstrap_python_base
    ) 9>"$CACHE/images.lock"
}

# In a shell of its own, at whose end the files go.
debootstrap_python_base() {
    [ "$(id -u)" = 0 ] || die "building a base image takes root"
    need debootstrap:debootstrap
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
        install_packages debian-archive-keyring
    say "Building a Python base image from Debian packages (about a minute, once)"
    root=$CACHE/rootfs
    rm -rf --one-file-system "$root"
    trap 'rm -rf --one-file-system "$root"' EXIT
    quietly debootstrap debootstrap --variant=minbase \
        --include=python3,python3-pip,ca-certificates bookworm "$root" \
        ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
    trust_our_authorities "$root"
    ln -s python3 "$root/usr/bin/python"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
    import_python_base "$root" || die "the Docker Engine does not take the base image"
}

import_python_base() {
    local changes=(
        --change 'CMD ["python3"]'
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
        --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt'
        # In an image there is no other Python to keep apart from Debian's.
        --change 'ENV PIP_BREAK_SYSTEM_PACKAGES=1'
        --change 'ENV PIP_ROOT_USER_ACTION=ignore'
        --change 'ENV PIP_DISABLE_PIP_VERSION_CHECK=1'
    )
    local index
    index=$(pip_index)
    [ -z "$index" ] || changes+=(--change "ENV PIP_INDEX_URL=$index")
    tar -C "$1" -c . | docker import "${changes[@]}" - $PYTHON_BASE >/dev/null
}

# The package index that this machine's pip is set to, if it is another than PyPI
# and holds no password: an image is no place for one.
pip_index() {
    local index=${PIP_INDEX_URL:-}
    [ -n "$index" ] || index=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null) || true
    case $index in
        *@*) ;;
        http://* | https://*) echo "$index" ;;
    esac
}

# What this machine trusts, its containers trust too: a company's own authority
# would otherwise stop every `pip install`.
trust_our_authorities() {
    local root=$1 bundle
    local own=/usr/local/share/ca-certificates
    [ ! -d $own ] || cp -r $own/. "$root$own/"
    quietly certificates chroot "$root" update-ca-certificates
    for bundle in "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt; do
        if [ -s "$bundle" ]; then
            cat "$bundle" >"$root/etc/ssl/certs/ca-certificates.crt"
            return
        fi
    done
}

# The 2 MB image that most tests build upon: busybox with its applets linked. Its
# httpd ignores SIGTERM as process 1, and tests have no ten seconds to wait for it.
test_image() {
    ! have_image $TEST_BASE || return 0
    # A dynamically linked busybox would not run in an empty image.
    if ! command -v busybox >/dev/null || ldd "$(command -v busybox)" >/dev/null 2>&1; then
        install_packages busybox-static
    fi
    say "Building $TEST_BASE from Debian's busybox-static"
    local context=$CACHE/busybox.$$
    mkdir -p "$context"
    cp "$(command -v busybox)" "$context/busybox"
    cat >"$context/Dockerfile" <<'END'
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "mkdir", "-p", "/tmp", "/etc", "/root"]
RUN ["/bin/busybox", "--install", "-s", "/bin"]
STOPSIGNAL SIGKILL
CMD ["/bin/sh"]
END
    quietly test-image docker build -t $TEST_BASE "$context"
    rm -rf "$context"
}

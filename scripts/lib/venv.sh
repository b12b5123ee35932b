# shellcheck shell=bash
# The clone's own Python environment, .venv.

make_venv() {
    local stamp
    stamp=$(sha256sum setup.cfg setup.py pyproject.toml && echo "$CLONE")
    (
        flock 9 # two scripts in one clone
        if [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ] && .venv/bin/python -c ''; then
            exit 0
        fi
        install_into_venv
        printf '%s\n' "$stamp" >.venv/stamp
    ) 9>"$CACHE/venv.lock"
}

install_into_venv() {
    local python
    find_python
    [ -e /etc/ssl/certs/ca-certificates.crt ] || install_packages ca-certificates
    say "Making .venv: pip install -e .[embedded,dev]"
    # One whose Python has gone, or that was moved, is no use.
    .venv/bin/pip --version >/dev/null 2>&1 || rm -rf .venv
    quietly venv "$python" -m venv .venv
    quietly pip .venv/bin/python -m pip install -e '.[embedded,dev]'
}

# Sets $python to one that is new enough and can make environments.
find_python() {
    for python in python3 /usr/bin/python3; do
        ! can_make_venv "$python" || return 0
    done
    install_packages python3 python3-venv
    can_make_venv "$python" || die "no Python 3.10 or newer: $("$python" --version 2>&1)"
}

can_make_venv() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

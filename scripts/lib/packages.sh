# shellcheck shell=bash
# Debian packages, installed only when something that they bring is missing.

apt_updated=

# need PROGRAM:PACKAGE…
need() {
    local pair missing=()
    for pair; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

install_packages() {
    mapfile -t < <(printf '%s\n' "$@" | sort -u)
    set -- "${MAPFILE[@]}"
    apt_update "$@"
    say "Installing Debian packages: $*"
    quietly apt-install env DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
    hash -r
}

# apt_update FOR-WHAT…: once per run. A third party's broken package list is no
# reason to stop: whether the packages can be had, the installation tells.
apt_update() {
    [ -z "$apt_updated" ] || return 0
    command -v apt-get >/dev/null || die "this needs $*, and there is no apt-get to install it"
    [ "$(id -u)" = 0 ] || die "this needs the Debian packages $*: install them, or run this as root"
    say "Reading Debian's package lists"
    apt-get update -o DPkg::Lock::Timeout=300 >"$LOGS/apt-update.log" 2>&1 </dev/null ||
        detail "not all of them could be read, see $LOGS/apt-update.log"
    apt_updated=yes
}

# need_idle PROGRAM:PACKAGE:SERVICE…: servers whose program the tests run by
# themselves; the machine must not start to serve because tests were run.
need_idle() {
    local each program package service packages=() services=()
    for each; do
        IFS=: read -r program package service <<<"$each"
        command -v "$program" >/dev/null || { packages+=("$package") && services+=("$service"); }
    done
    [ ${#packages[@]} != 0 ] || return 0
    apt_update "${packages[@]}"
    without_starting install_packages "${packages[@]}"
    [ ! -d /run/systemd/system ] || quietly systemctl systemctl disable "${services[@]}"
    hash -r
}

# Debian asks this file whether a service may be started when it is installed.
without_starting() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [ -e "$policy" ]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    # In a shell of its own, since a failure ends it.
    ("$@") || status=$?
    rm -f "$policy"
    [ "$status" = 0 ] || exit "$status"
}

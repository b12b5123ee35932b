# shellcheck shell=bash
# What the scripts print, and where the output of long commands goes.
# Every script sources this first, with the clone as its working directory.

CLONE=$PWD
CACHE=$CLONE/.cache
LOGS=$CACHE/logs
mkdir -p "$LOGS"
# Debian keeps dockerd, sshd and debootstrap where only root looks.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '==> %s\n' "$*"; }
detail() { printf '    %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Neither debootstrap nor the programs of a Python environment can live there.
[[ $CLONE != *[[:space:]]* ]] || die "move the clone: its path has a space in it: $CLONE"

# quietly NAME COMMAND…: the output goes to a log, which is shown when it fails.
quietly() {
    local log=$LOGS/$1.log
    shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        die "'$*' failed; all of its output is in $log"
    fi
}

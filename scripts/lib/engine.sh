# shellcheck shell=bash
# The Docker Engine: used if one answers, else installed and started. What was
# started here is ended by stop_engine, by the last script that uses it: an engine
# that is ended while another script removes a network may never start again.

# Holds a pid, or "systemd", while an engine runs that a script has started. Each
# script that uses an engine has a shared lock on it; the file stays.
ENGINE=/run/mypaas-scripts.engine
# A newer client without its buildx plugin can only drive the classic builder.
export DOCKER_BUILDKIT=0

engine_answers() {
    command -v docker >/dev/null &&
        timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

start_engine() {
    use_engine
    ! engine_answers || return 0
    [ -z "${DOCKER_HOST:-}" ] || die "no Docker Engine answers at DOCKER_HOST=$DOCKER_HOST"
    [ "$(id -u)" = 0 ] || die "no Docker Engine answers: start it, or run this as root"
    {
        flock 9 # two scripts that find none
        bring_up_engine
    } 9>"$ENGINE.lock"
}

# Waits while another script ends the engine.
use_engine() {
    { [ -e $ENGINE ] || : >$ENGINE; } 2>/dev/null || true
    [ -r $ENGINE ] || return 0 # only root starts and ends engines
    exec 8<$ENGINE
    flock -s 8
}

bring_up_engine() {
    install_engine
    ! engine_answers || return 0 # installing it has started it
    say "Starting the Docker Engine"
    if [ -d /run/systemd/system ]; then
        quietly dockerd systemctl start docker
        echo systemd >$ENGINE
    else
        start_dockerd
    fi
    wait_for_engine
}

install_engine() {
    local packages=()
    command -v dockerd >/dev/null || packages+=(docker.io)
    command -v iptables >/dev/null || packages+=(iptables)
    if ! command -v docker >/dev/null; then
        apt_update docker.io
        # Debian 13 has the client in a package of its own.
        if apt-cache show docker-cli >/dev/null 2>&1; then
            packages+=(docker-cli)
        else
            packages+=(docker.io)
        fi
    fi
    [ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"
}

start_dockerd() {
    local pid
    pid=$(living /run/docker.pid dockerd)
    if [ -n "$pid" ]; then
        detail "a dockerd runs already (pid $pid), waiting for it"
        return
    fi
    clear_leftovers
    # A session of its own: a Ctrl-C is for the script, which then ends it in order.
    setsid dockerd >"$LOGS/dockerd.log" 2>&1 </dev/null 8<&- 9>&- &
    echo $! >$ENGINE
}

# After a crash dockerd refuses to start while any process has the pid it wrote
# down, and waits in vain for a containerd that is gone.
clear_leftovers() {
    [ -n "$(living /run/docker.pid dockerd)" ] || rm -f /run/docker.pid
    local state=/run/docker/containerd
    [ -n "$(living $state/containerd.pid containerd)" ] || rm -f $state/containerd.pid
    local system=/run/containerd/containerd.sock
    [ ! -e $system ] || timeout 5 ctr version >/dev/null 2>&1 || rm -f $system
}

# living PIDFILE NAME: the pid, if a process of that name has it.
living() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$2" ] || echo "$pid"
}

wait_for_engine() {
    local deadline=$((SECONDS + 90))
    until engine_answers; do
        if [ $SECONDS -gt $deadline ] || engine_died; then
            tail -n 20 "$LOGS/dockerd.log" >&2 || true
            ! grep -q 'libnetwork.*reservePools' "$LOGS/dockerd.log" ||
                die "the engine's list of networks is damaged: move" \
                    "/var/lib/docker/network/files/local-kv.db away, then try again"
            die "the Docker Engine did not come up; its log is $LOGS/dockerd.log"
        fi
        sleep 0.2
    done
}

engine_died() {
    local started
    started=$(cat $ENGINE)
    [[ $started =~ ^[0-9]+$ ]] && ! kill -0 "$started" 2>/dev/null
}

# Ends the engine if a script has started it and nothing else needs it.
stop_engine() {
    local started running
    [ -z "${DOCKER_HOST:-}" ] && [ -w $ENGINE ] && [ -s $ENGINE ] || return 0
    flock -n 8 2>/dev/null || return 0 # another script uses it, and will end it
    started=$(cat $ENGINE)
    running=$(timeout 20 docker ps -q 2>/dev/null | wc -l) || true # not yet up: none
    if [ "$running" != 0 ]; then
        detail "the Docker Engine stays up: $running containers run on it"
        return
    fi
    if [ "$started" = systemd ]; then
        systemctl stop docker.service docker.socket >/dev/null 2>&1 || true
    elif [ -n "$(living $ENGINE dockerd)" ]; then
        end_process "$started" 30
    fi
    : >$ENGINE
}

# end_process PID SECONDS: SIGTERM, and SIGKILL after that many seconds.
end_process() {
    local deadline=$((SECONDS + $2))
    kill "$1" 2>/dev/null || return 0
    while kill -0 "$1" 2>/dev/null; do
        [ $SECONDS -le $deadline ] || kill -9 "$1" 2>/dev/null || true
        sleep 0.1
    done
}

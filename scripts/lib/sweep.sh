# shellcheck shell=bash
# Removing what a server of a demo or a test has made in the engine.

# sweep NAMESPACE: its containers, networks, volumes and images, and nobody else's.
# Fails when one of them could not be removed, having tried them all.
sweep() {
    local ours=(--filter "label=mypaas.namespace=$1" -q) status=0
    docker ps -a "${ours[@]}" | xargs -r docker rm -f -v >/dev/null || status=1
    docker network ls "${ours[@]}" | xargs -r docker network rm >/dev/null || status=1
    docker volume ls "${ours[@]}" | xargs -r docker volume rm -f >/dev/null || status=1
    docker images "$1/*" --format '{{.Repository}}:{{.Tag}}' | xargs -r docker rmi -f >/dev/null ||
        status=1
    return $status
}

# sweep_machines: engines of their own that test runs have left running.
sweep_machines() {
    [ "$(id -u)" != 0 ] || PYTHONPATH=tests .venv/bin/python -m support.machine
}

# sweep_dead: what test runs have left that did not come to their end. A test's
# namespace names the process that it belonged to: mypaas-test-PID-N.
sweep_dead() {
    local namespace pid
    for namespace in $(test_namespaces); do
        pid=${namespace#mypaas-test-}
        pid=${pid%%-*}
        [ ! -d "/proc/$pid" ] || continue
        detail "removing what a test run left: $namespace"
        sweep "$namespace" || true
    done
}

test_namespaces() {
    {
        docker ps -a --filter label=mypaas.namespace --format '{{.Label "mypaas.namespace"}}'
        docker network ls --filter label=mypaas.namespace --format '{{.Label "mypaas.namespace"}}'
        docker volume ls --filter label=mypaas.namespace --format '{{.Label "mypaas.namespace"}}'
        docker images --format '{{.Repository}}' | cut -d/ -f1
    } | sort -u | grep -E '^mypaas-test-[0-9]+-[0-9]+$' || true
}

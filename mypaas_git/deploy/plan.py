"""From a spec and an image to the containers to be made. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from mypaas_git.directives.model import ServiceSpec, Volume
from mypaas_git.names import release_label, replica_name
from mypaas_git.runtime.base import ReplicaPlan


def replica_plans(
    spec: ServiceSpec,
    release: int,
    image: str,
    env: Mapping[str, str],
    expand: Callable[[str], str],
) -> tuple[ReplicaPlan, ...]:
    """Return one plan per replica of ``release``.

    ``env`` has a value for every variable of the spec; ``expand`` turns a volume's
    ``~`` into a path. The passwords of visitors are the proxy's alone, unless the
    Dockerfile asks for them as a variable.
    """
    if spec.auth not in {each.key for each in spec.env}:
        env = {key: value for key, value in env.items() if key != spec.auth}
    return tuple(
        ReplicaPlan(
            name=name,
            service=spec.service,
            release=release,
            image=image,
            env={**env, **own_variables(spec, release, name)},
            aliases=(spec.service,),
            volumes=tuple(_expanded(volume, expand) for volume in spec.volumes),
            publish=spec.publish,
            maxcpu=spec.maxcpu,
            maxmem=spec.maxmem,
        )
        for name in replica_names(spec, release)
    )


def replica_names(spec: ServiceSpec, release: int) -> list[str]:
    """The names of the containers of ``release``."""
    return [replica_name(spec.service, release, n) for n in range(1, spec.replicas + 1)]


def ports_of(spec: ServiceSpec) -> frozenset[int]:
    """The ports on which a container of ``spec`` is reached by others."""
    return frozenset({spec.port, *(each.container_port for each in spec.publish)})


def own_variables(spec: ServiceSpec, release: int, replica: str) -> dict[str, str]:
    """What every container is told about itself."""
    return {
        "MYPAAS_SERVICE": spec.service,
        "MYPAAS_SCALE": str(spec.scale),
        "MYPAAS_PORT": str(spec.port),
        "MYPAAS_CONTAINER": replica,
        "MYPAAS_RELEASE": release_label(release),
    }


def _expanded(volume: Volume, expand: Callable[[str], str]) -> Volume:
    if volume.named:
        return volume
    return dataclasses.replace(volume, source=expand(volume.source))

"""What a Dockerfile's ``# mypaas.…`` lines ask for. Pure: text in, values out."""

from mypaas_git.directives.model import (
    EnvVar,
    Healthcheck,
    Publish,
    ServiceSpec,
    Url,
    Volume,
)
from mypaas_git.directives.parse import parse_dockerfile
from mypaas_git.directives.table import DIRECTIVES, Directive

__all__ = [
    "DIRECTIVES",
    "Directive",
    "EnvVar",
    "Healthcheck",
    "Publish",
    "ServiceSpec",
    "Url",
    "Volume",
    "parse_dockerfile",
]

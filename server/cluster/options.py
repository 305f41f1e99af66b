"""`bita serve`'s options, as far as they are a replica's and not its address or its life's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from server.commands import serve

# Of one server alone: what one replica did, the others would not know.
_ALONE = {
    "admin_key": "adapters are given with --adapter, and changed by deploying anew",
    "adapter_dir": "adapters are given with --adapter, and changed by deploying anew",
    "log_prompts": "replicas would write into each other's lines",
}
_RAYS = {
    "host": "Ray's proxies listen, see http_options",
    "port": "Ray's proxies listen, see http_options",
    "shutdown_timeout": "Ray ends replicas, see graceful_shutdown_timeout_s",
}


def parsed(options: Sequence[str]) -> argparse.Namespace:
    """What `bita serve` makes of these options and of this process' BITA_ variables.

    Raises ValueError for what it does not know, and for what has no meaning here.
    """
    parser = _Parser(prog="bita serve", allow_abbrev=False)
    serve.add_arguments(parser)
    found, unasked = parser.parse_args(list(options)), parser.parse_args([])
    for name, why in {**_ALONE, **_RAYS}.items():
        given = getattr(found, name)
        # The variables of address and life may be set for servers that are started without Ray.
        if given and not (name in _RAYS and given == getattr(unasked, name)):
            raise ValueError(f"--{name.replace('_', '-')} does not go with Ray Serve: {why}")
    return found


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

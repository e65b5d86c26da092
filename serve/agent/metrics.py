"""What Ray exports for Prometheus, Ray Serve's own metrics among it, from the node on which this process runs."""

from __future__ import annotations

import httpx
import ray

from calibadv.http_client import client_options

TIMEOUT_S = 5.0


async def ray_metrics() -> str | None:
    """The node's metrics as Prometheus reads them; None where Ray exports none. httpx.HTTPError where it is silent."""
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    if not node["MetricsExportPort"]:
        return None
    host = node["NodeManagerAddress"]
    url = f"http://{f'[{host}]' if ':' in host else host}:{node['MetricsExportPort']}/metrics"
    async with httpx.AsyncClient(timeout=TIMEOUT_S, **client_options(url)) as client:
        return (await client.get(url)).raise_for_status().text

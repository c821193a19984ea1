"""A control plane that is not ours: both variants of xDS on gRPC's Python and Envoy's own messages, in the ways of go-control-plane.

    server.py HOST:PORT snapshot|linear

It listens once it has a configuration. Each line on standard input is a whole configuration, `{"clusters": [...], "endpoints": [...], "listeners": [...], "routes": [...],
"virtual_hosts": [...], "secrets": [...], "extensions": [...]}` in Envoy's JSON, and for clients that ask on demand `"aliases": {NAME: [ALIAS, ...]}` of virtual hosts
and `"silent": [NAME, ...]`, of which nothing is ever said. Each line on standard output is something that happened: `serving`, `set` (with the reason, when it was
refused), `request`, `response`, `closed`.
"""

import asyncio
import json
import sys

import grpc

from envoy.service.cluster.v3 import cds_pb2_grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.endpoint.v3 import eds_pb2_grpc
from envoy.service.extension.v3 import config_discovery_pb2_grpc
from envoy.service.listener.v3 import lds_pb2_grpc
from envoy.service.route.v3 import rds_pb2_grpc
from envoy.service.secret.v3 import sds_pb2_grpc

import delta
import sotw
from cache import LinearCache, SnapshotCache
from resources import (
    CLUSTER,
    ENDPOINT,
    EXTENSION,
    LISTENER,
    NAMES,
    ROUTE,
    SECRET,
    VIRTUAL_HOST,
    options,
    parse,
)

# The service of each type, and what its methods are called; none of its own has the aggregated one.
SERVICES = [
    (None, ads_pb2_grpc, "AggregatedDiscoveryService", "AggregatedResources"),
    (CLUSTER, cds_pb2_grpc, "ClusterDiscoveryService", "Clusters"),
    (ENDPOINT, eds_pb2_grpc, "EndpointDiscoveryService", "Endpoints"),
    (LISTENER, lds_pb2_grpc, "ListenerDiscoveryService", "Listeners"),
    (ROUTE, rds_pb2_grpc, "RouteDiscoveryService", "Routes"),
    (VIRTUAL_HOST, rds_pb2_grpc, "VirtualHostDiscoveryService", "VirtualHosts"),
    (SECRET, sds_pb2_grpc, "SecretDiscoveryService", "Secrets"),
    (EXTENSION, config_discovery_pb2_grpc, "ExtensionConfigDiscoveryService", "ExtensionConfigs"),
]


def tell(event, **what):
    print(json.dumps({"event": event, **what}), flush=True)


class Server:
    def __init__(self, cache):
        self.cache = cache
        self.wakers = set()  # One for each stream, to look whether there is something to be sent.
        self.streams = 0

    def handler(self, make, type_url):
        async def serve(requests, context):
            self.streams += 1
            number, stream, wake = self.streams, make(self.cache, type_url), asyncio.Event()

            async def read():
                async for request in requests:
                    tell("request", stream=number, **seen(stream.variant, type_url, request))
                    stream.on_request(request)
                    wake.set()

            reader = asyncio.ensure_future(read())
            reader.add_done_callback(lambda _: wake.set())
            self.wakers.add(wake)
            try:
                while not reader.done():
                    for response, names, removed in stream.responses():
                        tell("response", stream=number, type=NAMES[response.type_url], nonce=response.nonce,
                             resources=names, removed=removed)
                        await context.write(response)
                    await wake.wait()
                    wake.clear()
                if error := reader.exception():
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            finally:
                reader.cancel()
                self.wakers.discard(wake)
                tell("closed", stream=number)

        return serve

    def set(self, line):
        try:
            command = json.loads(line)
            self.cache.set(parse(command))
            self.cache.aliases, self.cache.silent = options(command)
        except Exception as error:  # Whatever is wrong with it, whoever wrote it is told.
            tell("set", refused=str(error))
            return False
        tell("set")
        for wake in self.wakers:
            wake.set()
        return True


def seen(variant, type_url, request):
    """A request, as far as a test asks."""
    seen = {
        "variant": variant,
        "type": NAMES[request.type_url or type_url],
        "node": request.node.id,
        "nonce": request.response_nonce,
        "error": request.error_detail.message if request.HasField("error_detail") else None,
    }
    if variant == "sotw":
        return seen | {"version": request.version_info, "names": sorted(request.resource_names)}
    return seen | {
        "subscribe": sorted(request.resource_names_subscribe),
        "unsubscribe": sorted(request.resource_names_unsubscribe),
        "initial": sorted(request.initial_resource_versions),
    }


async def main(address, cache):
    server, grpc_server = Server(cache), grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    for type_url, module, service, methods in SERVICES:
        servicer = getattr(module, f"{service}Servicer")()
        setattr(servicer, f"Stream{methods}", server.handler(sotw.Stream, type_url))
        setattr(servicer, f"Delta{methods}", server.handler(delta.Stream, type_url))
        getattr(module, f"add_{service}Servicer_to_server")(servicer, grpc_server)
    lines = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    is_serving = False
    while line := await lines.readline():
        if server.set(line) and not is_serving:
            grpc_server.add_insecure_port(address)
            await grpc_server.start()
            is_serving = True
            tell("serving")


asyncio.run(main(sys.argv[1], {"snapshot": SnapshotCache, "linear": LinearCache}[sys.argv[2]]()))

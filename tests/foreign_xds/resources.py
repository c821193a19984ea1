"""Resources: JSON in Envoy's spelling to messages, their types in the order of ADS, and what one refers to."""

import hashlib

from google.protobuf.any_pb2 import Any
from google.protobuf.json_format import ParseDict

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2  # noqa: F401, known by name in JSON
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2  # noqa: F401
from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2  # noqa: F401, known by name in JSON
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401, known by name in JSON
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2  # noqa: F401

CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST, SECRET, EXTENSION = (
    "type.googleapis.com/" + message.DESCRIPTOR.full_name
    for message in (
        cluster_pb2.Cluster,
        endpoint_pb2.ClusterLoadAssignment,
        listener_pb2.Listener,
        route_pb2.RouteConfiguration,
        route_components_pb2.VirtualHost,
        secret_pb2.Secret,
        extension_pb2.TypedExtensionConfig,
    )
)

# What the JSON of a command calls them, and make before break.
TYPES = {
    "clusters": (CLUSTER, cluster_pb2.Cluster),
    "endpoints": (ENDPOINT, endpoint_pb2.ClusterLoadAssignment),
    "listeners": (LISTENER, listener_pb2.Listener),
    "routes": (ROUTE, route_pb2.RouteConfiguration),
    "virtual_hosts": (VIRTUAL_HOST, route_components_pb2.VirtualHost),
    "secrets": (SECRET, secret_pb2.Secret),
    "extensions": (EXTENSION, extension_pb2.TypedExtensionConfig),
}
ORDER = [url for url, _ in TYPES.values()]
NAMES = {url: name for name, (url, _) in TYPES.items()}

# A client may ask for a name that there is not, and is told.
ON_DEMAND = {CLUSTER, VIRTUAL_HOST}

# What a response in the state of the world does not have of these is removed.
FULL_STATE = {CLUSTER, LISTENER}


def parse(command):
    """The resources of a command: type URL -> name -> message."""
    parsed = {}
    for kind, (url, message) in TYPES.items():
        resources = [ParseDict(resource, message()) for resource in command.get(kind, [])]
        parsed[url] = {getattr(r, "cluster_name", None) or r.name: r for r in resources}
    return parsed


def options(command):
    """What else a command says: alias -> name of a virtual host, and the names of which nothing is ever said."""
    aliases = command.get("aliases") or {}
    return {alias: name for name, others in aliases.items() for alias in others}, set(command.get("silent", []))


def pack(message):
    packed = Any()
    # The same content is to have the same version in each process.
    packed.Pack(message, deterministic=True)
    return packed


def digest(packed):
    return hashlib.sha256(packed.value).hexdigest()[:16]


def inconsistency(resources):
    """Why a snapshot is none for ADS: it has other endpoints or routes than those that its clusters and listeners refer to."""
    wanted = {ENDPOINT: set(), ROUTE: set()}
    for name, cluster in resources[CLUSTER].items():
        if cluster.type == cluster_pb2.Cluster.EDS:
            wanted[ENDPOINT].add(cluster.eds_cluster_config.service_name or name)
    for listener in resources[LISTENER].values():
        for chain in listener.filter_chains:
            for filter in chain.filters:
                manager = http_connection_manager_pb2.HttpConnectionManager()
                if filter.typed_config.Unpack(manager) and manager.HasField("rds"):
                    wanted[ROUTE].add(manager.rds.route_config_name)
    for url, names in wanted.items():
        if names != set(resources[url]):
            return f"{NAMES[url]}: {sorted(names)} are referred to, {sorted(resources[url])} are there"
    return None

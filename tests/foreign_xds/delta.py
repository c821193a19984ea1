"""One stream of the incremental variant."""

from envoy.service.discovery.v3 import discovery_pb2
from resources import CLUSTER, ON_DEMAND, ORDER, VIRTUAL_HOST


class Subscription:
    """What a client wants of one type, and what it has."""

    def __init__(self, request):
        self.is_wildcard = not request.resource_names_subscribe
        self.names = set()
        self.asked = set()  # Names that nothing was said of yet.
        self.versions = dict(request.initial_resource_versions)  # name -> version
        self.is_first = True
        self.nonce = ""
        self.is_open = False  # Nothing is on its way to the client.

    def on_request(self, request):
        subscribed, unsubscribed = set(request.resource_names_subscribe), set(request.resource_names_unsubscribe)
        self.is_wildcard = "*" in subscribed or self.is_wildcard and "*" not in unsubscribed
        again = subscribed & self.names
        self.names = (self.names | subscribed) - unsubscribed - {"*"}
        self.asked = (self.asked | subscribed) & self.names
        for name in unsubscribed | again:
            self.versions.pop(name, None)
        if request.response_nonce in ("", self.nonce):
            self.is_open = True

    def changes(self, of, is_wildcard, aliases):
        """Names to be sent and names to be taken away, and what the client has then."""
        names = {aliases.get(name, name) for name in self.names}
        wanted = of.resources.keys() if is_wildcard else of.resources.keys() & names
        after = {name: of.hashes[name] for name in wanted}
        sent = sorted(name for name, version in after.items() if self.versions.get(name) != version)
        return sent, sorted(self.versions.keys() - after.keys()), after


class Stream:
    variant = "delta"

    def __init__(self, cache, type_url):
        self.cache, self.type_url = cache, type_url
        self.subscriptions = {}
        self.next_nonce = 1

    def on_request(self, request):
        url = request.type_url or self.type_url
        if not url:
            raise ValueError("type URL is required for ADS")
        if url not in self.subscriptions:
            self.subscriptions[url] = Subscription(request)
        self.subscriptions[url].on_request(request)

    def responses(self):
        for url in ORDER:
            subscription = self.subscriptions.get(url)
            if not subscription or not subscription.is_open:
                continue
            of = self.cache.types[url]
            aliases = self.cache.aliases if url == VIRTUAL_HOST else {}
            # Virtual hosts go to those who ask for them by name, or none would be asked for.
            is_wildcard = subscription.is_wildcard and url != VIRTUAL_HOST
            sent, removed, after = subscription.changes(of, is_wildcard, aliases)
            missing = sorted(
                name
                for name in subscription.asked
                if url in ON_DEMAND and aliases.get(name, name) not in of.resources and name not in self.cache.silent
            )
            # The first request of a wildcard is answered in any case: an Envoy waits for that at its start.
            if not sent and not removed and not missing and not (subscription.is_wildcard and subscription.is_first):
                continue
            # What was sent counts as held, also when it is refused: it is not sent again before it changes.
            subscription.versions = after
            subscription.is_first = subscription.is_open = False
            subscription.asked &= self.cache.silent
            subscription.nonce = str(self.next_nonce)
            self.next_nonce += 1
            response = discovery_pb2.DeltaDiscoveryResponse(
                system_version_info=self.cache.version(url),
                type_url=url,
                nonce=subscription.nonce,
                removed_resources=sorted({*removed, *(missing if url == CLUSTER else ())}),
                resources=[
                    discovery_pb2.Resource(
                        name=name,
                        version=of.hashes[name],
                        resource=of.resources[name],
                        aliases=[alias for alias, other in aliases.items() if other == name],
                    )
                    for name in sent
                ],
            )
            if url == VIRTUAL_HOST:
                # An Envoy does not understand that one was removed which it never had.
                response.resources.extend(discovery_pb2.Resource(name=name, aliases=[name]) for name in missing)
            yield response, sent, sorted({*removed, *missing})

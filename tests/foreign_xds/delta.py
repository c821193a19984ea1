"""One stream of the incremental variant."""

from envoy.service.discovery.v3 import discovery_pb2
from resources import ORDER


class Subscription:
    """What a client wants of one type, and what it has."""

    def __init__(self, request):
        self.is_wildcard = not request.resource_names_subscribe
        self.names = set()
        self.versions = dict(request.initial_resource_versions)  # name -> version
        self.is_first = True
        self.nonce = ""
        self.is_open = False  # Nothing is on its way to the client.

    def on_request(self, request):
        subscribed, unsubscribed = set(request.resource_names_subscribe), set(request.resource_names_unsubscribe)
        self.is_wildcard = "*" in subscribed or self.is_wildcard and "*" not in unsubscribed
        again = subscribed & self.names
        self.names = (self.names | subscribed) - unsubscribed - {"*"}
        for name in unsubscribed | again:
            self.versions.pop(name, None)
        if request.response_nonce in ("", self.nonce):
            self.is_open = True

    def changes(self, of):
        """Names to be sent and names to be taken away, and what the client has then."""
        wanted = of.resources.keys() if self.is_wildcard else of.resources.keys() & self.names
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
            sent, removed, after = subscription.changes(of)
            # The first request of a wildcard is answered in any case: an Envoy waits for that at its start.
            if not sent and not removed and not (subscription.is_wildcard and subscription.is_first):
                continue
            # What was sent counts as held, also when it is refused: it is not sent again before it changes.
            subscription.versions = after
            subscription.is_first = subscription.is_open = False
            subscription.nonce = str(self.next_nonce)
            self.next_nonce += 1
            response = discovery_pb2.DeltaDiscoveryResponse(
                system_version_info=self.cache.version(url),
                type_url=url,
                nonce=subscription.nonce,
                removed_resources=removed,
                resources=[
                    discovery_pb2.Resource(name=name, version=of.hashes[name], resource=of.resources[name])
                    for name in sent
                ],
            )
            yield response, sent, removed

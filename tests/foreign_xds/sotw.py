"""One stream of the state of the world."""

from envoy.service.discovery.v3 import discovery_pb2
from resources import ORDER


class Watch:
    """A request that waits for something newer than it has. Answered, it is over: the next request says how that went."""

    def __init__(self, type_url, names, version, sent, is_aggregated):
        self.type_url, self.names, self.version = type_url, names, version
        self.sent, self.is_aggregated = sent, is_aggregated


class Stream:
    variant = "sotw"

    def __init__(self, cache, type_url):
        self.cache, self.type_url = cache, type_url
        self.watches = {}
        self.last = {}  # type URL -> the last response
        self.sent = {}  # type URL -> names that the client has
        self.next_nonce = 1

    def on_request(self, request):
        url = request.type_url or self.type_url
        if not url:
            raise ValueError("type URL is required for ADS")
        last, names = self.last.get(url), set(request.resource_names) - {"*"}
        if last and request.response_nonce != last.nonce:
            return  # It answers a response before the last.
        sent = self.sent.setdefault(url, set())
        version = request.version_info
        if last and request.HasField("error_detail"):
            # What was refused is not sent again before it changes.
            version = last.version_info
        sent &= names
        self.watches[url] = Watch(url, names, version, sent, not self.type_url)

    def responses(self):
        for url in ORDER:
            watch = self.watches.get(url)
            answer = watch and self.cache.answer(watch)
            if answer:
                del self.watches[url]
                version, resources = answer
                watch.sent.update(name for name, _ in resources)
                response = discovery_pb2.DiscoveryResponse(
                    version_info=version,
                    type_url=url,
                    nonce=str(self.next_nonce),
                    resources=[packed for _, packed in resources],
                )
                self.next_nonce += 1
                self.last[url] = response
                yield response, [name for name, _ in resources], []

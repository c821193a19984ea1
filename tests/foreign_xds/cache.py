"""What is served, and what a client that has a version is to be sent: the two caches of go-control-plane.

Of each type: resources by name, a version of each (a hash, for the incremental variant) and one of all (for the state of the world).
"""

import secrets

from resources import FULL_STATE, ORDER, digest, inconsistency, pack


class OfType:
    def __init__(self):
        self.resources = {}  # name -> Any
        self.hashes = {}  # name -> version
        self.number = 0  # of the last change
        self.changed = {}  # name -> number of its last change, its removal too

    def set(self, messages):
        before = self.hashes
        self.resources = {name: pack(message) for name, message in sorted(messages.items())}
        self.hashes = {name: digest(packed) for name, packed in self.resources.items()}
        changed = {n for n in before.keys() | self.hashes.keys() if before.get(n) != self.hashes.get(n)}
        if changed:
            self.number += 1
            self.changed.update(dict.fromkeys(changed, self.number))

    def pick(self, names):
        return [(name, self.resources[name]) for name in sorted(names) if name in self.resources]


class Cache:
    """The resources, whatever their versions are."""

    def __init__(self):
        self.types = {url: OfType() for url in ORDER}
        self.aliases = {}  # alias -> name of a virtual host
        self.silent = set()  # names of which nothing is ever said

    def set(self, resources):
        for url, messages in resources.items():
            self.types[url].set(messages)


class SnapshotCache(Cache):
    """One consistent snapshot. A change of a type sends all of it that the client has asked for. On an aggregated stream nobody is answered
    who does not ask for everything of a type: the request that does is to come when the clusters, or listeners, have."""

    def set(self, resources):
        if reason := inconsistency(resources):
            raise ValueError(reason)
        super().set(resources)

    def version(self, url):
        hashes = self.types[url].hashes
        return hashes and "-".join(sorted(hashes.values())) or "empty"

    def answer(self, watch):
        """Resources and their version for a state-of-the-world client, or nothing as long as it has what there is."""
        of, version = self.types[watch.type_url], self.version(watch.type_url)
        is_new = any(name in of.resources and name not in watch.sent for name in watch.names)
        if watch.version == version and not is_new:
            return None
        if watch.names and watch.is_aggregated and not of.resources.keys() <= watch.names:
            return None
        return version, of.pick(watch.names or of.resources)


class LinearCache(Cache):
    """A collection of each type with a counter as its version. A change sends what changed, but all that is asked for of a type that goes by
    absence. Another process begins to count anew, under a prefix of its own."""

    def __init__(self):
        super().__init__()
        self.prefix = secrets.token_hex(4) + "-"

    def version(self, url):
        return f"{self.prefix}{self.types[url].number}"

    def answer(self, watch):
        of = self.types[watch.type_url]
        last = int(watch.version.removeprefix(self.prefix)) if watch.version.startswith(self.prefix) else None
        if not watch.names:
            names = of.resources if last != of.number else ()
            is_stale = last != of.number
        else:
            names = {name for name in watch.names if last is None or last < of.changed.get(name, 0)}
            # One that is asked for only now may be older than the version.
            names |= {name for name in watch.names if name in of.resources and name not in watch.sent}
            is_stale = bool(names)
        if not is_stale:
            return None
        if watch.names and watch.type_url in FULL_STATE:
            names = watch.names
        return self.version(watch.type_url), of.pick(names)

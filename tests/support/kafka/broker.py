"""A Kafka broker for pods: librdkafka's mock cluster, which listens on a loopback port of its own choice and tells its clients so,
behind relays that listen on every address and tell what a real broker's `advertised.listeners` would.

    broker.py PORT=ADVERTISED_HOST ...     each host is as long as "127.0.0.1", so that no length in a frame changes
"""

import socket
import sys
import threading

from confluent_kafka import Producer

MOCK_HOST = b"127.0.0.1"


def requests(client, broker):
    while chunk := client.recv(1 << 16):
        broker.sendall(chunk)
    broker.shutdown(socket.SHUT_WR)


def responses(broker, client, told, instead):
    """A response is its length in four bytes and that many bytes; an address in it is a host followed by a port in four bytes."""
    stream = broker.makefile("rb")
    while len(length := stream.read(4)) == 4:
        body = stream.read(int.from_bytes(length, "big"))
        client.sendall(length + body.replace(told, instead))
    client.shutdown(socket.SHUT_WR)


def until_closed(relay, *args):
    try:
        relay(*args)
    except OSError:
        pass


def serve(port, advertised, mock_port):
    assert len(advertised) == len(MOCK_HOST), advertised
    told = MOCK_HOST + mock_port.to_bytes(4, "big")
    instead = advertised + port.to_bytes(4, "big")
    listener = socket.create_server(("", port))
    while True:
        client, _ = listener.accept()
        broker = socket.create_connection((MOCK_HOST, mock_port))
        for relay in ((requests, client, broker), (responses, broker, client, told, instead)):
            threading.Thread(target=until_closed, args=relay, daemon=True).start()


owner = Producer({"test.mock.num.brokers": 1})
(mock,) = owner.list_topics(timeout=10).brokers.values()
for argument in sys.argv[1:]:
    port, host = argument.split("=")
    threading.Thread(target=serve, args=(int(port), host.encode(), mock.port), daemon=True).start()
threading.Event().wait()

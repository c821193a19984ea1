"""A Kafka client: produces a message to a topic of the same name, consumes it again, and prints it.

    roundtrip.py BOOTSTRAP_ADDRESS MESSAGE
"""

import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

bootstrap, message = sys.argv[1:]
broker = {"bootstrap.servers": bootstrap}
refused = []
producer = Producer(broker)
producer.produce(message, message.encode(), partition=0, on_delivery=lambda error, _: refused.append(error))
if producer.flush(15) or refused != [None]:
    sys.exit(f"not delivered: {refused}")
consumer = Consumer(broker | {"group.id": "reader"})
consumer.assign([TopicPartition(message, 0, OFFSET_BEGINNING)])
consumed = consumer.poll(15)
if consumed is None or consumed.error():
    sys.exit(f"not consumed: {consumed and consumed.error()}")
print(consumed.value().decode())

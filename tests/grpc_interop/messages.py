"""The messages and methods of gRPC's interoperability tests (`grpc.testing.TestService`), from a table instead of a compiler."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

SERVICE = "grpc.testing.TestService"

BOOL, INT, STRING, BYTES, BOX = "bool", "int32", "string", "bytes", "google.protobuf.BoolValue"

# Message -> its fields: name, number, type; `*` in front of a type: repeated.
FIELDS = {
    "Empty": [],
    "Payload": [("type", 1, INT), ("body", 2, BYTES)],
    "EchoStatus": [("code", 1, INT), ("message", 2, STRING)],
    "SimpleRequest": [
        ("response_type", 1, INT),
        ("response_size", 2, INT),
        ("payload", 3, "Payload"),
        ("response_compressed", 6, BOX),
        ("response_status", 7, "EchoStatus"),
        ("expect_compressed", 8, BOX),
    ],
    "SimpleResponse": [("payload", 1, "Payload")],
    "StreamingInputCallRequest": [("payload", 1, "Payload"), ("expect_compressed", 2, BOX)],
    "StreamingInputCallResponse": [("aggregated_payload_size", 1, INT)],
    "ResponseParameters": [("size", 1, INT), ("interval_us", 2, INT), ("compressed", 3, BOX)],
    "StreamingOutputCallRequest": [
        ("response_type", 1, INT),
        ("response_parameters", 2, "*ResponseParameters"),
        ("payload", 3, "Payload"),
        ("response_status", 7, "EchoStatus"),
    ],
    "StreamingOutputCallResponse": [("payload", 1, "Payload")],
}

# Method -> request, response, whether each of them is a stream.
METHODS = {
    "EmptyCall": ("Empty", "Empty", False, False),
    "UnaryCall": ("SimpleRequest", "SimpleResponse", False, False),
    "StreamingInputCall": ("StreamingInputCallRequest", "StreamingInputCallResponse", True, False),
    "StreamingOutputCall": ("StreamingOutputCallRequest", "StreamingOutputCallResponse", False, True),
    "FullDuplexCall": ("StreamingOutputCallRequest", "StreamingOutputCallResponse", True, True),
    # No server has it.
    "UnimplementedCall": ("Empty", "Empty", False, False),
}


def _classes():
    field_type = descriptor_pb2.FieldDescriptorProto
    scalars = {
        BOOL: field_type.TYPE_BOOL,
        INT: field_type.TYPE_INT32,
        STRING: field_type.TYPE_STRING,
        BYTES: field_type.TYPE_BYTES,
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="grpc/testing/messages.proto",
        package="grpc.testing",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(name=field, number=number)
            added.label = field_type.LABEL_REPEATED if kind.startswith("*") else field_type.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in scalars:
                added.type = scalars[kind]
            else:
                added.type = field_type.TYPE_MESSAGE
                added.type_name = f".{kind}" if "." in kind else f".grpc.testing.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.testing.{name}"))
        for name in FIELDS
    }


CLASSES = _classes()


def payload(size):
    return CLASSES["Payload"](body=bytes(size))

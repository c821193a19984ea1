"""A server of gRPC's interoperability tests.

    server.py HOST:PORT

Each line on standard output is a method whose call the client has cancelled.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

from messages import CLASSES, METHODS, SERVICE, payload

ECHO_INITIAL, ECHO_TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


def echo_metadata(context):
    metadata = dict(context.invocation_metadata())
    if ECHO_INITIAL in metadata:
        context.send_initial_metadata([(ECHO_INITIAL, metadata[ECHO_INITIAL])])
    if ECHO_TRAILING in metadata:
        context.set_trailing_metadata([(ECHO_TRAILING, metadata[ECHO_TRAILING])])


def end_with(status, context):
    if status.code:
        context.set_details(status.message)
        context.set_code({code.value[0]: code for code in grpc.StatusCode}[status.code])


def compress(wanted, context):
    if wanted.value:
        context.set_compression(grpc.Compression.Gzip)


def empty_call(request, context):
    return CLASSES["Empty"]()


def unary_call(request, context):
    echo_metadata(context)
    compress(request.response_compressed, context)
    if request.HasField("response_status"):
        end_with(request.response_status, context)
    return CLASSES["SimpleResponse"](payload=payload(request.response_size))


def streaming_input_call(requests, context):
    size = sum(len(request.payload.body) for request in requests)
    return CLASSES["StreamingInputCallResponse"](aggregated_payload_size=size)


def responses_to(request, context):
    for parameters in request.response_parameters:
        time.sleep(parameters.interval_us / 1e6)
        yield CLASSES["StreamingOutputCallResponse"](payload=payload(parameters.size))


def streaming_output_call(request, context):
    yield from responses_to(request, context)


def full_duplex_call(requests, context):
    echo_metadata(context)
    for request in requests:
        if request.HasField("response_status"):
            return end_with(request.response_status, context)
        yield from responses_to(request, context)


HANDLERS = {
    "EmptyCall": empty_call,
    "UnaryCall": unary_call,
    "StreamingInputCall": streaming_input_call,
    "StreamingOutputCall": streaming_output_call,
    "FullDuplexCall": full_duplex_call,
}


def watched(name, handler):
    """Tells when the client ends the call before the server has."""

    def handle(request, context):
        ended = lambda: print(name, flush=True) if not context.done else None  # noqa: E731
        context.done = False
        context.add_callback(ended)
        result = handler(request, context)
        if not hasattr(result, "__next__"):
            context.done = True
            return result

        def each():
            yield from result
            context.done = True

        return each()

    return handle


def handlers():
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    made = {}
    for name, handler in HANDLERS.items():
        request, _, *streams = METHODS[name]
        made[name] = kinds[tuple(streams)](
            watched(name, handler),
            request_deserializer=CLASSES[request].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
    return grpc.method_handlers_generic_handler(SERVICE, made)


server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
server.add_generic_rpc_handlers([handlers()])
assert server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()

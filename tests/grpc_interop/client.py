"""A client of gRPC's interoperability tests: runs every case and says for each what is wrong, or `ok`.

    client.py HOST:PORT AUTHORITY
"""

import sys
from queue import Queue

import grpc

from messages import CLASSES, METHODS, SERVICE, payload

Code = grpc.StatusCode
PATIENCE = 20  # Seconds.

CANCELS = 10

# What the test description has: sizes of requests and responses of the streams.
REQUEST_SIZES = [27182, 8, 1828, 45904]
RESPONSE_SIZES = [31415, 9, 2653, 58979]


def method(channel, name, service=SERVICE):
    request, response, *streams = METHODS[name]
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    return kinds[tuple(streams)](
        f"/{service}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=CLASSES[response].FromString,
    )


def simple(request_size, response_size, **more):
    return CLASSES["SimpleRequest"](payload=payload(request_size), response_size=response_size, **more)


def output(sizes, request_size=0, interval_us=0):
    parameters = [CLASSES["ResponseParameters"](size=size, interval_us=interval_us) for size in sizes]
    return CLASSES["StreamingOutputCallRequest"](response_parameters=parameters, payload=payload(request_size))


def expect(found, wanted):
    assert found == wanted, f"{found!r}, not {wanted!r}"


def ends_with(code, call, details=None):
    """The call fails like this."""
    try:
        result = call()
        if hasattr(result, "__next__"):
            list(result)
    except grpc.RpcError as error:
        expect(error.code(), code)
        if details is not None:
            expect(error.details(), details)
        return
    raise AssertionError(f"no {code}")


def empty_unary(channel):
    expect(method(channel, "EmptyCall")(CLASSES["Empty"](), timeout=PATIENCE), CLASSES["Empty"]())


def large_unary(channel):
    response = method(channel, "UnaryCall")(simple(271828, 314159), timeout=PATIENCE)
    expect(len(response.payload.body), 314159)


def very_large_unary(channel):
    """Many times each flow control window."""
    response = method(channel, "UnaryCall")(simple(40 << 20, 40 << 20), timeout=PATIENCE)
    expect(len(response.payload.body), 40 << 20)


def client_streaming(channel):
    requests = (CLASSES["StreamingInputCallRequest"](payload=payload(size)) for size in REQUEST_SIZES)
    response = method(channel, "StreamingInputCall")(requests, timeout=PATIENCE)
    expect(response.aggregated_payload_size, sum(REQUEST_SIZES))


def server_streaming(channel):
    responses = method(channel, "StreamingOutputCall")(output(RESPONSE_SIZES), timeout=PATIENCE)
    expect([len(response.payload.body) for response in responses], RESPONSE_SIZES)


def ping_pong(channel):
    """Each request waits for the response to the one before: nothing may be held back on the way."""
    received, queue = [], Queue()
    call = method(channel, "FullDuplexCall")(iter(queue.get, None), timeout=PATIENCE)
    for request_size, response_size in zip(REQUEST_SIZES, RESPONSE_SIZES):
        queue.put(output([response_size], request_size))
        received.append(len(next(call).payload.body))
    queue.put(None)
    expect(received, RESPONSE_SIZES)
    expect(list(call), [])


def empty_stream(channel):
    expect(list(method(channel, "FullDuplexCall")(iter(()), timeout=PATIENCE)), [])


def cancel_after_begin(channel):
    call = method(channel, "StreamingInputCall").future(iter(Queue().get, None), timeout=PATIENCE)
    call.cancel()
    expect(call.code(), Code.CANCELLED)


def cancel_after_first_response(channel):
    for _ in range(CANCELS):
        queue = Queue()
        queue.put(output([31415], 27182))
        call = method(channel, "FullDuplexCall")(iter(queue.get, None), timeout=PATIENCE)
        expect(len(next(call).payload.body), 31415)
        call.cancel()
        ends_with(Code.CANCELLED, lambda: call)


def timeout_on_sleeping_server(channel):
    call = method(channel, "StreamingOutputCall")
    ends_with(Code.DEADLINE_EXCEEDED, lambda: call(output([1], interval_us=10_000_000), timeout=0.2))


def custom_metadata(channel):
    metadata = [
        ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
        ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"),
    ]

    def check(call):
        initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
        expect(initial.get(metadata[0][0]), metadata[0][1])
        expect(trailing.get(metadata[1][0]), metadata[1][1])

    _, call = method(channel, "UnaryCall").with_call(simple(27182, 31415), metadata=metadata, timeout=PATIENCE)
    check(call)
    call = method(channel, "FullDuplexCall")(iter([output([31415], 27182)]), metadata=metadata, timeout=PATIENCE)
    expect(len(list(call)), 1)
    check(call)


def status_code_and_message(channel):
    status = CLASSES["EchoStatus"](code=2, message="test status message")
    unary = simple(0, 0, response_status=status)
    ends_with(Code.UNKNOWN, lambda: method(channel, "UnaryCall")(unary, timeout=PATIENCE), status.message)
    streaming = CLASSES["StreamingOutputCallRequest"](response_status=status)
    call = method(channel, "FullDuplexCall")
    ends_with(Code.UNKNOWN, lambda: call(iter([streaming]), timeout=PATIENCE), status.message)


def special_status_message(channel):
    message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
    request = simple(0, 0, response_status=CLASSES["EchoStatus"](code=2, message=message))
    ends_with(Code.UNKNOWN, lambda: method(channel, "UnaryCall")(request, timeout=PATIENCE), message)


def every_status(channel):
    """The number goes through as it is, whatever HTTP status stands beside it."""
    for code in Code:
        if code is not Code.OK:
            status = CLASSES["EchoStatus"](code=code.value[0], message=code.name)
            request = simple(0, 0, response_status=status)
            ends_with(code, lambda: method(channel, "UnaryCall")(request, timeout=PATIENCE), code.name)


def status_after_messages(channel):
    """The status comes in trailers, behind what was answered before it."""
    status = CLASSES["EchoStatus"](code=10, message="in the end")
    requests = iter([output([5]), CLASSES["StreamingOutputCallRequest"](response_status=status)])
    call = method(channel, "FullDuplexCall")(requests, timeout=PATIENCE)
    expect(len(next(call).payload.body), 5)
    ends_with(Code.ABORTED, lambda: call, "in the end")


def unimplemented_method(channel):
    call = method(channel, "UnimplementedCall")
    ends_with(Code.UNIMPLEMENTED, lambda: call(CLASSES["Empty"](), timeout=PATIENCE))


def unimplemented_service(channel):
    call = method(channel, "UnimplementedCall", "grpc.testing.UnimplementedService")
    ends_with(Code.UNIMPLEMENTED, lambda: call(CLASSES["Empty"](), timeout=PATIENCE))


def compressed_unary(channel):
    request = simple(271828, 314159)
    request.response_compressed.value = True
    gzip = grpc.Compression.Gzip
    response = method(channel, "UnaryCall")(request, compression=gzip, timeout=PATIENCE)
    expect(len(response.payload.body), 314159)


def compressed_streams(channel):
    requests = (CLASSES["StreamingInputCallRequest"](payload=payload(size)) for size in REQUEST_SIZES)
    call = method(channel, "StreamingInputCall")
    response = call(requests, compression=grpc.Compression.Deflate, timeout=PATIENCE)
    expect(response.aggregated_payload_size, sum(REQUEST_SIZES))


def many_at_once(channel):
    """Streams share connections and do not wait for each other."""
    slow = method(channel, "StreamingOutputCall")(output([1], interval_us=300_000), timeout=PATIENCE)
    call = method(channel, "UnaryCall")
    calls = [call.future(simple(1000, size), timeout=PATIENCE) for size in range(300)]
    expect([len(future.result().payload.body) for future in calls], list(range(300)))
    expect(len(list(slow)), 1)


CASES = [
    empty_unary,
    large_unary,
    very_large_unary,
    client_streaming,
    server_streaming,
    ping_pong,
    empty_stream,
    cancel_after_begin,
    cancel_after_first_response,
    timeout_on_sleeping_server,
    custom_metadata,
    status_code_and_message,
    special_status_message,
    every_status,
    status_after_messages,
    unimplemented_method,
    unimplemented_service,
    compressed_unary,
    compressed_streams,
    many_at_once,
]


def main(address, authority):
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.default_authority", authority)]
    with grpc.insecure_channel(address, options=unlimited) as channel:
        for case in CASES:
            try:
                case(channel)
                print(f"{case.__name__}: ok", flush=True)
            except (AssertionError, grpc.RpcError) as error:
                print(f"{case.__name__}: {error}".replace("\n", " "), flush=True)


main(*sys.argv[1:])

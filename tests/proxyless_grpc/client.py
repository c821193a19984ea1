"""A gRPC client that finds its server by xDS; GRPC_XDS_BOOTSTRAP names the bootstrap.

    client.py xds:///HOST:PORT

Each line on standard input, `COUNT METHOD`, is so many calls one after the other. The answer is one line of JSON: how often which answer
came, and how often which error.
"""

import collections
import json
import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1])
for line in sys.stdin:
    count, method = line.split()
    answers, errors = collections.Counter(), collections.Counter()
    call = channel.unary_unary(method)
    for _ in range(int(count)):
        try:
            answers[call(b"", timeout=10).decode()] += 1
        except grpc.RpcError as error:
            errors[f"{error.code().name}: {error.details()}"] += 1
    print(json.dumps({"answers": answers, "errors": errors}), flush=True)

"""A plain gRPC server that answers every unary call with its name.

    server.py HOST:PORT NAME
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc


class Everything(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: NAME)


ADDRESS, NAME = sys.argv[1], sys.argv[2].encode()
server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
server.add_generic_rpc_handlers([Everything()])
server.add_insecure_port(ADDRESS)
server.start()
server.wait_for_termination()

//! What operators print, in text and in JSON.

use outrigger_tests::bootstrap::type_url;
use serde_json::json;

use super::{Row, compare_logs, get, metadata};

#[test]
fn of_the_request() {
    let path = "/p/q?a=1%2C2&b=x%20y&empty=&b=2";
    compare_logs(&[
        Row::text("path", "%PATH% %PATH(NQ)% %PATH(WQ:PATH):4% %PATH(NQ:ORIG)% %PATH(:ORIG_OR_PATH)%", &[path, "/old/x?y"]),
        Row::text(
            "query",
            "%QUERY_PARAM(a)% %QUERY_PARAM(b):1% %QUERY_PARAM(empty)% %QUERY_PARAM(no)% %QUERY_PARAMS% \
             %QUERY_PARAMS(DECODED)% %QUERY_PARAMS(ORIG):3%",
            &[path, "/p"],
        ),
        Row::text(
            "host",
            "%REQUESTED_SERVER_NAME% %REQUESTED_SERVER_NAME(SNI_FIRST)% %REQUESTED_SERVER_NAME(HOST_FIRST:ORIG)% \
             %REQUESTED_SERVER_NAME(HOST_FIRST:HOST)%",
            &[path],
        ),
        Row::text("changed by the route", "%REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH)% %REQ(X-ADDED)%", &["/old/a", "/b"]),
        Row::text(
            "bytes of headers",
            "%REQUEST_HEADERS_BYTES% %RESPONSE_HEADERS_BYTES% %RESPONSE_TRAILERS_BYTES%",
            &["/p", "/direct", "/h2/trailers"],
        )
        // The time that the upstream takes has one digit or two.
        .hcm(json!({"http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": type_url("extensions.filters.http.router.v3.Router"), "suppress_envoy_headers": true}}]})),
        Row::text("stream", "%STREAM_ID%", &[])
            .send(get("/", "x-request-id: 6f5902ac-237b-4f1d-9d5c-0123456789ab\r\n")),
    ]);
}

#[test]
fn of_the_response() {
    compare_logs(&[
        Row::text(
            "trailers",
            "%TRAILER(x-trailer)% %RESPONSE_TRAILER(no?x-trailer):2% %TRAILER(no)%",
            &["/h2/trailers", "/"],
        ),
        Row::text(
            "grpc",
            "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%",
            &["/grpc"],
        )
        .send(get("/grpc", "content-type: application/grpc\r\n"))
        .send(get("/h2/trailers", "content-type: application/grpc+proto\r\n"))
        .send(get("/plain", "content-type: application/grpc\r\n"))
        .send(get("/503", "content-type: application/grpc\r\n")),
        Row::text(
            "details",
            "%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)% %RESPONSE_FLAGS_LONG% %RESPONSE_CODE_DETAILS%",
            &["/away", "/"],
        ),
        Row::text(
            "what does not happen here",
            "%CUSTOM_FLAGS%|%TRACE_ID%|%SPAN_ID%|%ROUNDTRIP_DURATION%|%BYTES_RETRANSMITTED%|\
             %PACKETS_RETRANSMITTED%|%LOCAL_REPLY_BODY%",
            &["/", "/direct"],
        ),
    ]);
}

#[test]
fn of_the_way() {
    compare_logs(&[
        Row::text(
            "upstream",
            "%UPSTREAM_PROTOCOL% %UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT% %UPSTREAM_HOSTS_ATTEMPTED% \
             %UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT% %UPSTREAM_HOST_NAMES_ATTEMPTED% %UPSTREAM_CLUSTER% \
             %UPSTREAM_REQUEST_ATTEMPT_COUNT%",
            &["/", "/h2/", "/direct", "/away"],
        ),
        Row::text(
            "networks",
            "%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(16)% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(0)% \
             %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(9)% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(32)% \
             %DOWNSTREAM_DIRECT_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_LOCAL_PORT% %DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT%",
            &["/", "/direct"],
        ),
        Row::text(
            "names",
            "%FILTER_CHAIN_NAME% %ROUTE_NAME% %ACCESS_LOG_TYPE% %HOSTNAME% %ENVIRONMENT(NOT_SET)%",
            &["/", "/h2/"],
        ),
        Row::text(
            "metadata",
            "%CLUSTER_METADATA(ns)% %CLUSTER_METADATA(ns:text)% %METADATA(UPSTREAM_HOST:ns:text):3% %UPSTREAM_METADATA(ns:object)% \
             %METADATA(ROUTE:ns:list)% %METADATA(ROUTE:ns:half)% %METADATA(CLUSTER:ns:object:a)% %METADATA(UPSTREAM_HOST:ns:yes)% \
             %DYNAMIC_METADATA(ns:text)% %METADATA(ROUTE:no)% %CLUSTER_METADATA(ns:text:deeper)%",
            &["/", "/h2/", "/direct"],
        ),
        Row::text("metadata of the virtual host", "%METADATA(VIRTUAL_HOST:ns:text)% %METADATA(VIRTUAL_HOST:ns:list):3% %METADATA(ROUTE:ns:half)%", &["/", "/direct"])
            .hcm(json!({"route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "metadata": metadata(), "routes": [
                {"match": {"path": "/"}, "route": {"cluster": "up"}, "metadata": metadata()},
                {"match": {"path": "/direct"}, "direct_response": {"status": 200}},
            ]}]}})),
        Row::text("virtual clusters", "%VIRTUAL_CLUSTER_NAME% %PATH%", &["/", "/a", "/direct"])
            .hcm(json!({"route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "virtual_clusters": [
                {"name": "slash", "headers": [{"name": ":path", "string_match": {"exact": "/"}}]},
            ], "routes": [
                {"match": {"path": "/direct"}, "direct_response": {"status": 200}},
                {"match": {"prefix": "/"}, "route": {"cluster": "up", "prefix_rewrite": "/x/"}},
            ]}]}})),
        Row::text(
            "the first that is known",
            "%COALESCE({\"operators\": [\"REQUESTED_SERVER_NAME\", {\"command\": \"REQ\", \"param\": \"x-no\"}, \
             {\"command\": \"REQ\", \"param\": \":authority\", \"max_length\": 6}]}):4% %COALESCE({\"operators\": [\"TRACE_ID\"]})%",
            &["/"],
        ),
    ]);
}

#[test]
fn json() {
    let format = json!({
        "code": "%RESPONSE_CODE%", "mixed": "%RESPONSE_CODE% %REQ(x-no)%", "missing": "%REQ(x-no)%", "empty": "%CUSTOM_FLAGS%",
        "metadata": {
            "whole": "%CLUSTER_METADATA(ns)%", "number": "%METADATA(ROUTE:ns:number)%", "yes": "%METADATA(ROUTE:ns:yes)%",
            "cut": "%METADATA(ROUTE:ns:text):3%", "list": ["%METADATA(ROUTE:ns:list):2%", "%PROTOCOL%"],
        },
        "bytes": "%REQUEST_HEADERS_BYTES%", "status": "%GRPC_STATUS(NUMBER)%", "host": "%COALESCE({\"operators\":[\"BYTES_SENT\"]})%",
        "environment": "%ENVIRONMENT(NOT_SET)%", "port": "%DOWNSTREAM_LOCAL_PORT%",
    });
    let without = json!({"json_format": format, "omit_empty_values": true});
    let grpc = || get("/grpc", "content-type: application/grpc\r\n");
    compare_logs(&[
        Row::new("json", json!({"json_format": format}), &["/", "/direct"]).send(grpc()),
        Row::new("json without what is empty", without, &["/", "/direct"]).send(grpc()),
        Row::new(
            "deprecated text",
            json!({"text_format": "%PATH% [%REQ(x-no)%]\n", "omit_empty_values": true}),
            &["/"],
        ),
    ]);
}

//! `envoy_http_*`: the connection managers that share a `stat_prefix`, and their route configurations.

use super::ResponseClasses;
use super::scope::scope;

scope! {
    /// Statistics of all HTTP connection managers with one `stat_prefix`.
    HttpStats in "http" ["envoy_http_conn_manager_prefix"] {
        Counter downstream_cx_total "Connections.";
        Gauge downstream_cx_active "Connections that are open now.";
        Counter downstream_cx_http1_total "HTTP/1 connections.";
        Counter downstream_cx_http2_total "HTTP/2 connections.";
        Gauge downstream_cx_http1_active "HTTP/1 connections that are open now.";
        Gauge downstream_cx_http2_active "HTTP/2 connections that are open now.";
        Counter downstream_cx_ssl_total "TLS connections.";
        Gauge downstream_cx_ssl_active "TLS connections that are open now.";
        Counter downstream_cx_destroy "Connections that ended.";
        Counter downstream_cx_destroy_remote "Connections that the client ended.";
        Counter downstream_cx_destroy_local "Connections that the proxy ended.";
        Counter downstream_cx_destroy_active_rq "Connections that ended with requests in flight.";
        Counter downstream_cx_idle_timeout "Connections closed because they were idle.";
        Counter downstream_cx_max_duration_reached "Connections closed because of their maximum duration.";
        Counter downstream_cx_max_requests_reached "Connections closed because they had carried their maximum of requests.";
        Counter downstream_cx_protocol_error "Connections on which the client broke the protocol.";
        Counter downstream_cx_drain_close "Connections closed by draining.";
        Counter downstream_cx_overload_disable_keepalive "Connections that end with their response by the overload manager.";
        Counter downstream_cx_delayed_close_timeout "Connections whose client did not end them after their last answer, within delayed_close_timeout.";
        Counter downstream_cx_upgrades_total "Requests for another protocol that were allowed.";
        Gauge downstream_cx_upgrades_active "Streams now that asked for another protocol and were allowed.";
        Histogram downstream_cx_length_ms "How long connections lived, milliseconds.";
        Counter downstream_cx_rx_bytes_total "Bytes received from clients.";
        Counter downstream_cx_tx_bytes_total "Bytes sent to clients.";
        Counter downstream_rq_total "Requests.";
        Gauge downstream_rq_active "Requests in flight.";
        Counter downstream_rq_http1_total "HTTP/1 requests.";
        Counter downstream_rq_http2_total "HTTP/2 requests.";
        Counter downstream_rq_completed "Requests that got a response.";
        Histogram downstream_rq_time "Time from the start of a request to the end of its response, milliseconds.";
        Counter downstream_rq_timeout "Requests that were not received within request_timeout.";
        Counter downstream_rq_idle_timeout "Requests closed because they were idle.";
        Counter downstream_rq_header_timeout "Requests whose headers were not received within request_headers_timeout.";
        Counter downstream_rq_max_duration_reached "Requests closed because of their maximum duration.";
        Counter downstream_rq_rx_reset "Requests that the client reset.";
        Counter downstream_rq_tx_reset "Requests that were reset towards the client.";
        Counter downstream_rq_non_relative_path "Requests refused because their path is not absolute.";
        Counter downstream_rq_overload_close "Requests that the overload manager refused.";
        Counter downstream_rq_ws_on_non_ws_route "Requests for another protocol that were not allowed.";
        Counter no_route "Requests that no route matched.";
        Counter no_cluster "Requests whose route names a cluster that does not exist.";
        Counter rq_direct_response "Requests answered or redirected by their route.";
        Counter passthrough_internal_redirect_bad_location "Redirects not followed here because their location is no absolute URL.";
        Counter passthrough_internal_redirect_unsafe_scheme "Redirects not followed here because of another scheme.";
        Counter passthrough_internal_redirect_too_many_redirects "Redirects not followed here because enough were.";
        Counter passthrough_internal_redirect_no_route "Redirects not followed here because no route takes them.";
        Counter passthrough_internal_redirect_predicate "Redirects not followed here because a predicate refused.";
        Counter rq_total "Requests that a route took.";
        Counter tracing_health_check as "tracing.health_check" "Requests that a health check filter took for health checks.";
        Counter fault_delays_injected as "fault.delays_injected" "Requests that the fault filter held up.";
        Counter fault_aborts_injected as "fault.aborts_injected" "Requests that the fault filter aborted.";
        Counter fault_overflow as "fault.faults_overflow" "Faults that were not injected because of max_active_faults.";
        Counter fault_response_rl_injected as "fault.response_rl_injected" "Requests whose response the fault filter slows down.";
        Gauge fault_active as "fault.active_faults" "Requests now that have a fault.";
        Counter cors_origin_valid as "cors.origin_valid" "Requests whose origin a CORS policy allows.";
        Counter cors_origin_invalid as "cors.origin_invalid" "Requests whose origin no CORS policy allows.";
    }
    with {
        /// `downstream_rq_Nxx`.
        classes: ResponseClasses,
    }
    nested {}
    responses "downstream_rq" { classes }
}

impl HttpStats {
    /// Counts a finished response: by class, and as completed.
    pub fn response(&self, code: u16) {
        self.downstream_rq_completed.inc();
        self.classes.count(code);
    }
}

scope! {
    /// Updates of one route configuration. Envoy has these for each connection manager (label `envoy_http_conn_manager_prefix`);
    /// here connection managers share a route configuration, and its updates are counted once.
    RdsStats in "http.rds" ["envoy_rds_route_config"] {
        Counter update_attempt "Updates that came.";
        Counter update_success "Updates applied.";
        Counter update_failure "Updates that failed on their way.";
        Counter update_rejected "Updates that were not valid.";
        Counter config_reload "Updates that changed the route configuration.";
    }
    with {}
    nested {}
}

scope! {
    /// Statistics of all local rate limits with one `stat_prefix`.
    LocalRateLimitStats in "http_local_rate_limit" ["envoy_local_http_ratelimit_prefix"] {
        Counter enabled "Requests that a local rate limit looked at.";
        Counter ok "Requests that a local rate limit let pass.";
        Counter rate_limited "Requests for which a local rate limit had no token.";
        Counter enforced "Requests that a local rate limit refused.";
        Counter shadow_mode "Requests that a local rate limit would have refused.";
    }
    with {}
    nested {}
    labels_first true
}

//! `envoy_server_*`, the counters of configuration and what Outrigger counts about itself (`outrigger_*`).

use std::time::Instant;

use super::scope::scope;

/// When the process began to count, for `server.uptime`.
#[derive(Debug)]
pub struct Started(Instant);

impl Default for Started {
    fn default() -> Self {
        Self(Instant::now())
    }
}

scope! {
    /// Statistics of the process.
    ServerStats in "" [] {
        Gauge uptime as "server.uptime" "Seconds since the start.";
        Gauge live as "server.live" "1 while the server takes connections, 0 while it drains.";
        Gauge state as "server.state" "0 live, 1 draining, 2 pre-initializing, 3 initializing.";
        Gauge concurrency as "server.concurrency" "Number of workers.";
        Gauge total_connections as "server.total_connections" "Downstream connections that are open now.";
        Gauge memory_allocated as "server.memory_allocated" "Resident memory, bytes.";
        Gauge memory_heap_size as "server.memory_heap_size" "Memory reserved for data, bytes.";
        Gauge memory_physical_size as "server.memory_physical_size" "Resident memory, bytes.";
        Gauge days_until_first_cert_expiring as "server.days_until_first_cert_expiring"
            "Days until the first certificate in use expires.";
        Gauge version as "server.version" "The version as a number: 1002003 is 1.2.3.";

        Counter listener_added as "listener_manager.listener_added" "Listeners added.";
        Counter listener_modified as "listener_manager.listener_modified" "Listeners changed.";
        Counter listener_removed as "listener_manager.listener_removed" "Listeners removed.";
        Counter listener_create_success as "listener_manager.listener_create_success" "Listening sockets that a worker took.";
        Counter listener_create_failure as "listener_manager.listener_create_failure"
            "Listening sockets that a worker could not take.";
        Gauge total_listeners_active as "listener_manager.total_listeners_active" "Listeners that take connections.";
        Gauge total_listeners_warming as "listener_manager.total_listeners_warming" "Listeners that wait for others.";
        Counter lds_update_attempt as "listener_manager.lds.update_attempt" "Listener updates that came.";
        Counter lds_update_success as "listener_manager.lds.update_success" "Listener updates applied.";
        Counter lds_update_failure as "listener_manager.lds.update_failure" "Listener updates that failed on their way.";
        Counter lds_update_rejected as "listener_manager.lds.update_rejected" "Listener updates that were not valid.";

        Gauge active_clusters as "cluster_manager.active_clusters" "Clusters that take requests.";
        Gauge warming_clusters as "cluster_manager.warming_clusters" "Clusters that wait for their endpoints or secrets.";
        Counter cluster_added as "cluster_manager.cluster_added" "Clusters added.";
        Counter cluster_modified as "cluster_manager.cluster_modified" "Clusters changed.";
        Counter cluster_removed as "cluster_manager.cluster_removed" "Clusters removed.";
        Counter cds_update_attempt as "cluster_manager.cds.update_attempt" "Cluster updates that came.";
        Counter cds_update_success as "cluster_manager.cds.update_success" "Cluster updates applied.";
        Counter cds_update_failure as "cluster_manager.cds.update_failure" "Cluster updates that failed on their way.";
        Counter cds_update_rejected as "cluster_manager.cds.update_rejected" "Cluster updates that were not valid.";

        Gauge control_plane_connected_state as "control_plane.connected_state" "1 while connected to the control plane.";

        Counter http_inspector_http10_found as "http_inspector.http10_found" "Connections that began with HTTP/1.0.";
        Counter http_inspector_http11_found as "http_inspector.http11_found" "Connections that began with HTTP/1.1.";
        Counter http_inspector_http2_found as "http_inspector.http2_found" "Connections that began with HTTP/2 in plain text.";
        Counter http_inspector_http_not_found as "http_inspector.http_not_found" "Connections that began with something else than HTTP.";
        Counter http2_inbound_empty_frames_flood as "http2.inbound_empty_frames_flood"
            "Connections closed for too many frames that carry nothing.";
        Counter http2_inbound_priority_frames_flood as "http2.inbound_priority_frames_flood"
            "Connections closed for too many PRIORITY frames.";
        Counter http2_inbound_window_update_frames_flood as "http2.inbound_window_update_frames_flood"
            "Connections closed for too many WINDOW_UPDATE frames.";
        Counter http2_keepalive_timeout as "http2.keepalive_timeout"
            "Connections closed because their client said nothing for too long after a PING.";
        Counter http2_settings_missing as "outrigger.http2_settings_missing_total" "Connections closed because they did not begin with SETTINGS.";
        Counter tls_inspector_tls_found as "tls_inspector.tls_found" "Connections that began with a ClientHello.";
        Counter tls_inspector_tls_not_found as "tls_inspector.tls_not_found" "Connections that began with something else than TLS.";
        Counter tls_inspector_sni_found as "tls_inspector.sni_found" "ClientHellos with a server name.";
        Counter tls_inspector_sni_not_found as "tls_inspector.sni_not_found" "ClientHellos without a server name.";
        Counter tls_inspector_alpn_found as "tls_inspector.alpn_found" "ClientHellos that offer application protocols.";
        Counter tls_inspector_alpn_not_found as "tls_inspector.alpn_not_found" "ClientHellos that offer no application protocol.";

        Gauge on_demand_names as "outrigger.on_demand_names"
            "Clusters and virtual hosts that are subscribed to because a request asked for them.";
        Counter on_demand_refused_total as "outrigger.on_demand_refused_total"
            "Requests whose cluster or virtual host was not asked for because too many names are.";
        Counter config_ignored_fields_total as "outrigger.config_ignored_fields_total"
            "Configuration fields that are set, harmless and not implemented.";
        Counter connections_refused_fd_total as "outrigger.connections_refused_fd_total"
            "Times that a connection had to wait to be accepted because there was no file descriptor left.";
        Counter peer_certificate_expired_total as "outrigger.connections_closed_peer_certificate_expired_total"
            "Downstream connections that ended because the certificate of their peer had expired.";
        Counter identity_renewals_total as "outrigger.identity_renewals_total"
            "Certificates that were issued for the workload.";
        Counter identity_renewal_failures_total as "outrigger.identity_renewal_failures_total"
            "Times that the certificate service issued no certificate.";
        Gauge identity_expiry_timestamp_seconds as "outrigger.identity_expiry_timestamp_seconds"
            "When the workload's certificate expires, in seconds since 1970; 0 without one.";
        Counter connection_panics_total as "outrigger.connection_panics_total"
            "Connections (of HTTP/2: streams) that ended because of a fault in the proxy.";
        Counter application_scrape_failures_total as "outrigger.application_scrape_failures_total"
            "Times that the application's metrics were missing in the merged page.";
        Counter access_log_write_failures_total as "outrigger.access_log_write_failures_total"
            "Access log buffers that could not be written.";
    }
    with {
        /// Start of the process.
        started: Started,
    }
    nested {}
}

impl ServerStats {
    /// Brings up to date what nobody counts: time, memory, version. Called before statistics are read.
    pub fn refresh(&self) {
        self.uptime.set(i64::try_from(self.started.0.elapsed().as_secs()).unwrap_or(i64::MAX));
        self.version.set(version_number());
        if let Some(memory) = Memory::read() {
            self.memory_allocated.set(memory.resident_bytes);
            self.memory_physical_size.set(memory.resident_bytes);
            self.memory_heap_size.set(memory.data_bytes);
        }
    }

    /// Seconds since the start.
    pub fn uptime_s(&self) -> u64 {
        self.started.0.elapsed().as_secs()
    }
}

fn version_number() -> i64 {
    let part = |text: &str| text.parse::<i64>().unwrap_or(0);
    part(env!("CARGO_PKG_VERSION_MAJOR")) * 1_000_000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 1_000
        + part(env!("CARGO_PKG_VERSION_PATCH"))
}

/// Memory of this process.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident set size, bytes.
    pub resident_bytes: i64,
    /// Size of the data segments (heap and stacks, touched or not), bytes.
    pub data_bytes: i64,
}

impl Memory {
    /// Reads `/proc/self/status`; `None` where that does not exist.
    pub fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let bytes = |key| {
            let kib = status.lines().find_map(|line| line.strip_prefix(key))?.trim().strip_suffix(" kB")?;
            kib.parse::<i64>().ok().map(|kib| kib * 1024)
        };
        Some(Self { resident_bytes: bytes("VmRSS:")?, data_bytes: bytes("VmData:")? })
    }
}

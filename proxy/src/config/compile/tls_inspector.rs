//! `envoy.filters.listener.tls_inspector`.

use outrigger_xds_api::wire::listener::v3::{ListenerFilter, listener_filter::ConfigType};
use outrigger_xds_api::wire::tls_inspector::v3 as wire;

use super::cx::{CompileCx, Compiled, ignored, unsupported};
use super::values;

/// Envoy's and our limit of a ClientHello, bytes.
const MAX_CLIENT_HELLO_BYTES: u32 = 16 * 1024;

/// Compiles a listener filter; the only one there is has no settings that matter here.
pub(crate) fn compile_listener_filter(filter: &ListenerFilter, cx: &mut CompileCx<'_>) -> Compiled<()> {
    let ListenerFilter { name, filter_disabled, config_type } = filter;
    unsupported!(cx; filter_disabled);
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) => return Err(cx.refuse("config_discovery", "not supported")),
        None => {
            return Err(cx.refuse("typed_config", format!("listener filter '{name}' has no typed_config")));
        }
    };
    cx.field("typed_config", |cx| match values::type_name(any) {
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
            let wire::TlsInspector {
                enable_ja3_fingerprinting,
                enable_ja4_fingerprinting,
                initial_read_buffer_size,
                close_connection_on_client_hello_parsing_errors,
                max_client_hello_size,
            } = values::unpack(cx, any)?;
            // Fingerprints only appear in log operators, which the log compiler refuses.
            ignored!(cx; enable_ja3_fingerprinting, enable_ja4_fingerprinting, initial_read_buffer_size);
            unsupported!(cx; close_connection_on_client_hello_parsing_errors);
            if values::uint32(&max_client_hello_size, MAX_CLIENT_HELLO_BYTES) != MAX_CLIENT_HELLO_BYTES {
                cx.refuse("max_client_hello_size", format!("only {MAX_CLIENT_HELLO_BYTES} is supported"));
            }
            Ok(())
        }
        other => Err(cx.refuse("@type", format!("listener filter '{other}' is not supported"))),
    })
}

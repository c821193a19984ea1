//! Istio's access log line, to standard output.

use outrigger_xds_api::wire::accesslog::v3::{AccessLog, access_log};
use outrigger_xds_api::wire::core::v3::{
    DataSource, SubstitutionFormatString, data_source, substitution_format_string,
};
use outrigger_xds_api::wire::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};

use crate::model::MeshSettings;
use crate::translate::wire::any;

/// Istio's default text format (pilot/pkg/model/telemetry_logging.go).
const FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% \
    %ROUTE_NAME%\n";

/// The access loggers of every connection manager and TCP proxy: none unless the mesh asks for one.
pub(super) fn access_log(settings: &MeshSettings) -> Vec<AccessLog> {
    if !settings.access_log {
        return Vec::new();
    }
    let text = DataSource {
        specifier: Some(data_source::Specifier::InlineString(FORMAT.to_owned())),
        ..DataSource::default()
    };
    let format = SubstitutionFormatString {
        format: Some(substitution_format_string::Format::TextFormatSource(text)),
        ..SubstitutionFormatString::default()
    };
    let file = FileAccessLog {
        path: "/dev/stdout".to_owned(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)),
    };
    vec![AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&file))),
        ..AccessLog::default()
    }]
}

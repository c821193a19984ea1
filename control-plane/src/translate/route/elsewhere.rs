//! Requests that no Service's routes are for.

use outrigger_xds_api::wire::core::v3::{DataSource, data_source};
use outrigger_xds_api::wire::route::v3::route::Action;
use outrigger_xds_api::wire::route::v3::{DirectResponseAction, Route, VirtualHost};

use super::everything_to;
use crate::model::{MeshSettings, UnknownDestinations};
use crate::translate::names::PASSTHROUGH;

/// Where captured requests go whose host is nobody's (both virtual hosts as in Istio).
pub(super) fn others(settings: &MeshSettings) -> VirtualHost {
    let (name, route) = match settings.unknown_destinations {
        UnknownDestinations::AllowAny => ("allow_any", everything_to(PASSTHROUGH.to_owned())),
        UnknownDestinations::RegistryOnly => ("block_all", answer("block_all", 502, None)),
    };
    VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    }
}

/// The answer to clients in explicit mode: they mean a host, and the ServiceEntry wants the address that they mean.
pub(super) fn needs_capture(host: &str) -> Route {
    let why = format!(
        "ServiceEntry of {host} has resolution NONE: only clients whose connections are captured say an address\n"
    );
    answer("needs-capture", 503, Some(why))
}

fn answer(name: &str, status: u32, body: Option<String>) -> Route {
    let body = body.map(|text| DataSource {
        specifier: Some(data_source::Specifier::InlineString(text)),
        ..DataSource::default()
    });
    let action = DirectResponseAction { status, body, ..DirectResponseAction::default() };
    Route {
        name: name.to_owned(),
        action: Some(Action::DirectResponse(action)),
        ..everything_to(String::new())
    }
}

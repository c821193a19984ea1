//! `envoy.filters.http.on_demand`: a request whose virtual host or cluster nobody knows waits until its source has been asked.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{Decision, FilterReply, Override, Wait, Waited};
use crate::http::active_stream::{ActiveStream, LacksHost};
use crate::on_demand::{Answer, Asker};
use crate::route::Action;
use crate::stream_info::{ResponseFlags, details};

/// `envoy.extensions.filters.http.on_demand.v3.OnDemand` and `PerRouteConfig`, compiled. Virtual hosts are asked for by what their
/// route configuration says.
#[derive(Debug, Clone, Default)]
pub struct OnDemand {
    /// `odcds`; `None`: a cluster that is not known is not asked for.
    pub clusters: Option<OnDemandClusters>,
}

/// `OnDemandCds`.
#[derive(Debug, Clone)]
pub struct OnDemandClusters {
    /// `source`.
    pub asker: Asker,
    /// `timeout`, default 5 s.
    pub timeout: Duration,
}

pub(super) fn on_request(own: &OnDemand, said: Option<&Override>, stream: &mut ActiveStream) -> Decision {
    let filter = match said {
        Some(Override::OnDemand(said)) => said,
        _ => own,
    };
    if matches!(stream.lacks_host, LacksHost::Yes(_)) {
        return match std::mem::replace(&mut stream.lacks_host, LacksHost::Asked) {
            LacksHost::Yes(host) => Decision::Wait(Wait::VirtualHost(host.0, host.1)),
            LacksHost::No | LacksHost::Asked => Decision::Continue,
        };
    }
    let (Some(clusters), Some(route)) = (&filter.clusters, &stream.route) else { return Decision::Continue };
    let Action::Route(action) = &route.action else { return Decision::Continue };
    if stream.cluster(action).is_some() {
        return Decision::Continue;
    }
    match stream.chosen_cluster().filter(|name| !name.is_empty()) {
        Some(name) => Decision::Wait(Wait::Cluster(clusters.clone(), name.to_owned())),
        None => Decision::Continue,
    }
}

/// Waits for the cluster. Without one the request goes on, and the router says what is missing, as in Envoy.
pub(super) async fn cluster(
    clusters: OnDemandClusters,
    name: String,
    stream: &mut ActiveStream,
) -> Option<FilterReply> {
    let worker = stream.connection.worker.clone();
    let answer = tokio::select! {
        answer = clusters.asker.ask(name) => answer,
        () = worker.timers.wait(clusters.timeout) => Answer::Missing,
    };
    let route = stream.route.clone()?;
    let Action::Route(action) = &route.action else { return None };
    if let (Some(header), Some(named)) = (action.clusters.header(stream.drawn), &mut stream.named) {
        header.find(named);
    }
    (answer == Answer::TooMany).then(|| too_many(action.cluster_not_found, ResponseFlags::NO_CLUSTER_FOUND))
}

/// Waits for the virtual host, for as long as the connection manager lets it. Without one there is no route.
pub(super) async fn virtual_host(asker: Asker, name: String) -> Waited {
    match asker.ask(name).await {
        Answer::Ready => Waited::ChooseAgain,
        Answer::Missing => Waited::GoesOn,
        Answer::TooMany => {
            let reply = too_many(StatusCode::NOT_FOUND, ResponseFlags::NO_ROUTE_FOUND);
            Waited::Reply(Box::new(reply))
        }
    }
}

fn too_many(status: StatusCode, flag: ResponseFlags) -> FilterReply {
    FilterReply {
        status,
        grpc_status: None,
        body: Bytes::new(),
        headers: HeaderMap::new(),
        takes_route_headers: true,
        flag,
        details: details::TOO_MANY_ON_DEMAND,
    }
}

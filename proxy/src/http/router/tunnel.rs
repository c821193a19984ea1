//! CONNECT that ends here (`connect_config`): a TCP connection to a host of the route's cluster. It is tried once.

use super::attempt::{Avoid, failed, pick};
use crate::cluster;
use crate::http::active_stream::ActiveStream;
use crate::http::codec;
use crate::http::error::{Failure, StreamError};
use crate::route::RouteAction;

/// Connects, and keeps the connection as the tunnel's end.
pub(crate) async fn open_tunnel(stream: &mut ActiveStream, action: &RouteAction) -> Result<(), StreamError> {
    let Some(cluster) = stream.cluster(action) else {
        return Err(Failure::NoCluster(action.cluster_not_found).into());
    };
    stream.info.upstream_cluster = Some(cluster.clone());
    let began = cluster.lb.now();
    let Some(host) = pick(stream, &cluster, action.criteria(stream.drawn), Avoid::default(), began) else {
        return Err(Failure::NoHealthyHost.into());
    };
    stream.attempt(&cluster, &host, began);
    match cluster::connect(&cluster, &host, action.high_priority, false).await {
        Ok(_) if !stream.note_tunnel(action.high_priority) => {
            cluster.stats.upstream_rq_pending_overflow.inc();
            Err(failed(stream, &cluster, Failure::Overflow.into()))
        }
        Ok(connected) => {
            stream.info.upstream_local_address = connected.local_address;
            stream.info.upstream_tls = connected.tls;
            if let Some(upgrade) = &mut stream.upgrade {
                upgrade.reach(codec::plain(&cluster, connected.stream, connected.guard));
            }
            Ok(())
        }
        Err(error) => Err(failed(stream, &cluster, error.into())),
    }
}

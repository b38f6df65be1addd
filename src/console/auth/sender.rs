//! Where a request comes from.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use uuid::Uuid;

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(in crate::console) struct Sender {
    /// The id of the request.
    pub(in crate::console) id: Uuid,
    /// The address of the connection; behind a proxy, that of the proxy.
    pub(in crate::console) peer: Option<IpAddr>,
}

impl Sender {
    /// Finds out where a request comes from.
    pub(in crate::console) fn of(request: &Request<Body>) -> Self {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        Self {
            id: Uuid::now_v7(),
            peer: peer.map(|ConnectInfo(peer)| peer.ip().to_canonical()),
        }
    }
}

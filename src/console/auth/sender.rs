//! Where a request comes from.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use uuid::Uuid;

use super::proxy::{ProxiedUser, SigningProxy};

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(in crate::console) struct Sender {
    /// The id of the request.
    pub(in crate::console) id: Uuid,
    /// The address of the connection; behind a proxy, that of the proxy.
    pub(in crate::console) peer: Option<IpAddr>,
    /// The user whom the proxy names.
    pub(in crate::console) user: Option<ProxiedUser>,
}

impl Sender {
    /// Finds out where a request comes from, and removes the headers that only the proxy may send.
    pub(in crate::console) fn of(
        proxy: Option<&SigningProxy>,
        request: &mut Request<Body>,
    ) -> Self {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map(|ConnectInfo(peer)| peer.ip().to_canonical());
        let user = proxy.and_then(|proxy| proxy.take_user(peer, request.headers_mut()));
        Self {
            id: Uuid::now_v7(),
            peer,
            user,
        }
    }
}

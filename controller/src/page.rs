//! The status page: what the controller knows, for people with a browser. It is read only, has a port
//! of its own, and is never served to everybody.
//!
//! Every replica may serve it: it shows what the watches of this process have seen, which whoever
//! stands by keeps, too. So it needs no right that the controller does not have, and it shows the
//! namespaces that the controller works in.
//!
//! Against other sites in the same browser: nothing here changes anything, every answer needs
//! credentials, and a browser keeps those by origin. So a name that an attacker rebinds to our address
//! brings none, and gets a 401; which is why `Host` is not looked at, and the page can be reached by any
//! name, say of a port-forward. What is asked for across sites with credentials cannot be read there:
//! no CORS header is sent, and the policies of [`headers`](site) keep it out of frames and embeds.

mod access;
mod advice;
mod live;
mod parts;
mod seen;
mod site;
mod view;

#[cfg(test)]
mod tests;

pub use access::Access;
pub use live::Changes;
pub use seen::{Caches, Seen};

use crate::config::{PAGE_FLAGS, PageConfig};
use site::Site;
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch};
use towline_agent::server::{FileError, Limits, Tls};

/// What a connection may take: as the agent's.
const LIMITS: Limits = Limits {
    connections: 256,
    header_read: Duration::from_secs(10),
    idle: Duration::from_secs(60),
    unacknowledged: Duration::from_secs(60),
};

/// The page, ready to be served.
#[derive(Debug)]
pub struct Page {
    access: Access,
    tls: Option<Arc<Tls>>,
}

impl Page {
    /// Reads the files that say who may read it, and its own certificate.
    ///
    /// # Errors
    /// A file that cannot be used, and why.
    pub async fn open(config: &PageConfig) -> Result<Self, FileError> {
        let access = Access::open(config).await?;
        let tls = match &config.tls {
            Some(files) => {
                let (cert, key) = (files.cert.clone(), files.key.clone());
                let clients = access.clients();
                let tls = Tls::open(cert, key, clients, None, PAGE_FLAGS).await?;
                Some(Arc::new(tls))
            }
            None => None,
        };
        Ok(Self { access, tls })
    }

    /// Serves until `stop` says so, and until every answer has ended.
    pub async fn serve(
        self,
        listener: TcpListener,
        seen: Seen,
        version: &'static str,
        stop: watch::Receiver<bool>,
    ) {
        let site = Arc::new(Site::new(self.access, seen, version, stop.clone()));
        let router = site::router(&site);
        towline_agent::server::serve(listener, LIMITS, stop, self.tls, move |request, caller| {
            let (site, router) = (Arc::clone(&site), router.clone());
            async move { site.answer(router, request, caller).await }
        })
        .await;
    }
}

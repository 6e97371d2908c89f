//! A server without a network: its router answers whatever request it is handed.

use std::sync::Arc;

use axum::Router;
use lockstep_server::http::router;
use lockstep_server::run::{ServeOptions, open};
use lockstep_server::server::Server;
use tempfile::TempDir;

/// The server, with an empty folder of its own.
pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) server: Arc<Server>,
    _folder: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let options = ServeOptions::in_folder(folder.path().to_owned());
        let server = open(&options).await.unwrap().server;
        Self { router: router(Arc::clone(&server)), server, _folder: folder }
    }
}

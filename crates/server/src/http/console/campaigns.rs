//! `/campaigns`: all of them, newest first.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::shown;
use super::{Frame, Looking, Trouble, frame, page};
use crate::server::Server;
use crate::store::campaigns::Campaign;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/campaigns", get(show))
}

#[derive(Template)]
#[template(path = "campaigns.html")]
struct CampaignsPage {
    frame: Frame,
    campaigns: Vec<Campaign>,
}

async fn show(
    State(server): State<Arc<Server>>,
    Looking(caller): Looking,
) -> Result<Response, Trouble> {
    let campaigns = server.store.campaigns().await?;
    page(&CampaignsPage { frame: frame(&caller, "campaigns", "campaign:"), campaigns })
}

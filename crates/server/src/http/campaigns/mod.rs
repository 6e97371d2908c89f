//! Campaigns for people and programs: looked at here, made in [`making`], steered in [`steering`].

mod making;
mod steering;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{Campaigns, Counts, OneCampaign, WholeCampaign};
use super::auth::Viewer;
use super::contract::Identity;
use super::given;
use super::problem::Problem;
use crate::server::Server;
use crate::store::campaigns::Campaign;

pub(super) use making::{Given, begin};
pub(super) use steering::{approve_wave, go_on, retry_group, revert_wave, steer};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .merge(making::routes())
        .merge(steering::routes())
}

/// All campaigns
///
/// Newest first.
#[utoipa::path(get, path = "/api/campaigns", tag = "campaigns", operation_id = "listCampaigns",
    security(("token" = ["viewer"])),
    responses((status = 200, description = "All.", body = Campaigns)))]
async fn list(State(server): State<Arc<Server>>, _: Viewer) -> Result<Json<Campaigns>, Problem> {
    let campaigns = server.store.campaigns().await?.iter().map(Into::into).collect();
    Ok(Json(Campaigns { campaigns }))
}

/// One campaign
///
/// With its groups.
#[utoipa::path(get, path = "/api/campaigns/{id}", tag = "campaigns", operation_id = "showCampaign",
    security(("token" = ["viewer"])), params(("id" = Identity, Path)),
    responses((status = 200, description = "It.", body = OneCampaign)))]
async fn show(
    State(server): State<Arc<Server>>,
    _: Viewer,
    given::Path(id): given::Path<String>,
) -> Result<Json<OneCampaign>, Problem> {
    let campaign = find(&server, &id).await?;
    let participants = server.store.participants(&id).await?;
    let campaign = WholeCampaign {
        campaign: (&campaign).into(),
        counts: Counts::of(&participants),
        groups: participants.into_iter().map(Into::into).collect(),
    };
    Ok(Json(OneCampaign { campaign }))
}

pub(super) async fn find(server: &Server, id: &str) -> Result<Campaign, Problem> {
    server.store.campaign(id).await?.ok_or_else(|| Problem::not_found("campaign", id))
}

//! What all requests share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use jiff::{Span, Timestamp};
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::Trust;
use tokio::sync::broadcast;
use tracing::{error, info};

use crate::field::Foresight;
use crate::fleet::Mode;
use crate::http::limits::Attempts;
use crate::lead::roster::{Answer, Install, Roster};
use crate::lead::writer::Writer;
use crate::manifests::places;
use crate::metrics::{Fleet, Metrics};
use crate::objects::Objects;
use crate::patches::composed::fitting;
use crate::patches::maker::{self, Chosen, Maker};
use crate::store::changes::Heard;
use crate::store::checkins::Desired;
use crate::store::{Store, StoreError};
use crate::tls::Tls;

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// What is durable.
    pub store: Store,
    /// Bundles.
    pub objects: Objects,
    /// Takes check-ins down.
    pub writer: Writer,
    /// Leads that came lately.
    pub roster: Roster,
    /// What has changed, for whoever watches.
    pub changes: broadcast::Sender<Change>,
    /// What would go wrong with releases, until something changes.
    pub foresight: Foresight,
    /// Whose releases are taken in.
    pub trust: Trust,
    /// Where bundles are while they come.
    pub folder: PathBuf,
    /// The one-time word of the setup link, while nobody has been let in.
    pub setup_word: Option<String>,
    /// Wrong passwords and tokens, by address.
    pub attempts: Attempts,
    /// What is known of patches, and what is to be made.
    pub maker: Maker,
    /// What has been done since the start.
    pub metrics: Metrics,
    /// How often a lead comes when nothing happens, in seconds.
    pub poll_s: u32,
    /// Where people find this server, for what is printed; without a slash at its end.
    pub public_url: String,
    /// Where leads and old firmware find it, in plain; without a slash at its end.
    pub lead_url: String,
    /// What boards get that are flashed from a browser.
    pub bootloaders: BTreeMap<ChipId, Bytes>,
    /// What is shown to whoever comes by TLS.
    pub tls: Option<Arc<Tls>>,
}

/// Something that a page may show has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A group, by its identity.
    Group(String),
    /// A group's lead has another credential, or the group is gone; by the group's identity.
    Lead(String),
    /// A campaign, by its identity.
    Campaign(String),
    /// A release came or was withdrawn.
    Releases,
    /// Anything may have: other servers were not heard for a while.
    Anything,
    /// The server ends: streams of events end with it, or it would wait for them.
    Ends,
}

impl Server {
    /// Tells whoever watches; it does not matter if nobody does.
    pub fn changed(&self, change: Change) {
        self.foresight.changed();
        let _ = self.changes.send(change);
    }

    /// Reads again what a group should run, and tells its lead if it waits.
    pub async fn refresh(&self, group: &str) -> Result<(), StoreError> {
        let Some(seat) = self.roster.of_group(group) else { return Ok(()) };
        let desired = self.store.desired(group).await?;
        seat.tell(self.answer(group, &desired).await?);
        Ok(())
    }

    /// Whoever was heard last before this moment is silent.
    pub fn silent_before(&self, now: Timestamp) -> Timestamp {
        let wait = Span::new().seconds(i64::from(self.poll_s) * SILENT_POLLS);
        now.checked_sub(wait).unwrap_or(Timestamp::MIN)
    }

    /// How the fleet stands.
    pub async fn fleet(&self, now: Timestamp) -> Result<Fleet, StoreError> {
        Ok(Fleet {
            census: self.store.census().await?,
            campaigns: self.store.campaign_states().await?,
            silent: self.store.silent_since(self.silent_before(now)).await?,
            certificate_ends_s: self.certificate_ends_s(),
        })
    }

    fn certificate_ends_s(&self) -> Option<u64> {
        let tls = self.tls.as_ref()?;
        u64::try_from(tls.expires_at().as_second()).ok()
    }

    /// Other servers were not heard for a while: everybody whose lead came lately, and whoever
    /// watches.
    async fn look_again(&self) -> Result<(), StoreError> {
        for group in self.roster.groups() {
            self.refresh(&group).await?;
        }
        self.changed(Change::Anything);
        Ok(())
    }

    /// What a lead is told of what its group should run. A release is offered when its patches are
    /// made.
    pub async fn answer(&self, group: &str, desired: &Desired) -> Result<Answer, StoreError> {
        let desired = &self.with_patches(group, desired).await?;
        let install = match desired.offer {
            None => Install::Now,
            Some(_) => match self.store.group(group).await?.map(|group| group.mode) {
                Some(Mode::Notify) => Install::Ask,
                Some(Mode::Automatic) | None => Install::Now,
            },
        };
        Ok(Answer::new(desired, install, self.poll_s))
    }

    /// The same with the patches of the offer chosen, or without an offer while they are made.
    async fn with_patches(&self, group: &str, desired: &Desired) -> Result<Desired, StoreError> {
        let mut desired = desired.clone();
        let Some(offer) = desired.offer.as_mut().filter(|offer| offer.patches.is_none()) else {
            return Ok(desired);
        };
        let release = self.store.release_of_bundle(&offer.bundle_sha256).await?;
        let Some(release) = release else { return Ok(desired) };
        let devices = self.store.devices_as_last_heard(group).await?;
        match maker::choose(self, group, &devices, &release).await? {
            Chosen::Waits => desired.offer = None,
            Chosen::Patches(patches) => {
                let fitting = fitting(release.bundle_bytes, &places(&release), patches);
                offer.patches = Some(self.store.choose_patches(&offer.id, &fitting).await?);
            }
        }
        Ok(desired)
    }

    /// Decides what follows for a campaign, and tells everybody whom it is about.
    pub async fn advance(&self, campaign: &str, now: Timestamp) -> Result<(), StoreError> {
        let (groups, has_changed) = self.store.advance_campaign(campaign, now).await?;
        if has_changed || !groups.is_empty() {
            self.changed(Change::Campaign(campaign.to_owned()));
        }
        for group in groups {
            self.refresh(&group).await?;
            self.changed(Change::Group(group));
        }
        Ok(())
    }
}

/// Hears what other servers on the same database do, for as long as the server runs.
pub async fn follow_others(server: Arc<Server>) {
    loop {
        match follow(&server).await {
            Ok(()) => return,
            // Campaigns say so in the log.
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Ends at once where there are no others.
async fn follow(server: &Server) -> Result<(), StoreError> {
    let Some(mut others) = server.store.follow().await? else { return Ok(()) };
    server.look_again().await?;
    loop {
        match others.next().await? {
            Heard::Anything => server.look_again().await?,
            Heard::Change(change) => {
                match &change {
                    Change::Group(group) => server.refresh(group).await?,
                    Change::Lead(group) => server.roster.forget_group(group),
                    Change::Campaign(_) | Change::Releases => (),
                    Change::Anything | Change::Ends => (),
                }
                server.changed(change);
            }
        }
    }
}

/// Looks after campaigns for as long as the server runs: hours open, soaks end, and other servers
/// hear what follows.
pub async fn look_after_campaigns(server: Arc<Server>) {
    let mut was_away = false;
    loop {
        match advance_all(&server).await {
            Ok(()) if was_away => {
                was_away = false;
                info!("the database is back; campaigns go on");
            }
            Ok(()) => (),
            // Once for each time that it is away.
            Err(trouble) if !was_away => {
                was_away = true;
                let cause = std::error::Error::source(&trouble).map(ToString::to_string);
                error!(%trouble, cause, "campaigns wait");
            }
            Err(_) => (),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn advance_all(server: &Server) -> Result<(), StoreError> {
    for campaign in server.store.lively_campaigns().await? {
        server.advance(&campaign, Timestamp::now()).await?;
    }
    Ok(())
}

/// A lead that has not come for so many polls is silent.
const SILENT_POLLS: i64 = 3;
/// Campaigns are looked at this often, beside whenever a report moves one on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

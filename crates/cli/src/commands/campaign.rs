//! `lockstep campaign …`: many groups brought to one release, in waves.

use std::io::IsTerminal as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::{Value, json};

use super::group::moment;
use crate::error::CommandError;
use crate::fleet::answers::{Campaign, Campaigns};
use crate::fleet::{Page, Server, ServerArgs, paint};
use crate::ui::{Ui, table, tame};

/// Bring many groups to a release in waves, with a fleet's server
#[derive(Debug, Subcommand)]
pub(crate) enum CampaignCommand {
    Create(Box<CreateArgs>),
    List(ListArgs),
    Show(ShowArgs),
    Watch(WatchArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
    Abort(AbortArgs),
    Approve(ApproveArgs),
    Retry(RetryArgs),
    Revert(RevertArgs),
}

/// Begin a campaign
///
/// Groups of a wave are offered the release when all of the wave before have kept it. More failures
/// than --failures, and it pauses by itself: a group that has begun goes on to its own end, whole.
///
/// A canary first, then a tenth, then half of the rest when somebody has approved it, then all:
///   lockstep campaign create 1.2.0 --canary stage=canary --waves '10,40!,50' --soak 1h
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CreateArgs {
    /// The release: its version or its identity
    #[arg(value_name = "RELEASE")]
    release: String,

    /// What to call the campaign [default: after the release]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,

    /// All groups with these labels [default: all groups]
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "", hide_default_value = true)]
    labels: String,

    /// This group, and no other than those named so; may be given several times
    #[arg(long = "group", value_name = "GROUP", conflicts_with = "labels")]
    groups: Vec<String>,

    /// Groups with these labels are a first wave of their own
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "", hide_default_value = true)]
    canary: String,

    /// Shares of the others in percent, 100 together; with `!` behind it a person approves the
    /// wave first [default: all at once]
    #[arg(long, value_name = "SHARE,…", default_value = "", hide_default_value = true)]
    waves: String,

    /// So long a wave must have kept the release before the next begins, such as 30m or 1d
    #[arg(long, value_name = "TIME", default_value = "0s", hide_default_value = true,
        value_parser = humantime::parse_duration)]
    soak: Duration,

    /// A wave does not wait longer than this for groups that do not begin [default: it waits]
    #[arg(long, value_name = "TIME", default_value = "0s", hide_default_value = true,
        value_parser = humantime::parse_duration)]
    patience: Duration,

    /// So many groups may fail; one more, and it pauses
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    failures: usize,

    /// Nothing is offered before this moment, such as 2026-02-03T14:30:00Z
    #[arg(long, value_name = "RFC3339")]
    not_before: Option<String>,

    /// Begin although the server has found what some groups will refuse
    #[arg(long)]
    despite_findings: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// List all campaigns, the newest first
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Show the waves of a campaign, how its groups stand, and why some have failed
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Follow a campaign until it is over, or pauses
///
/// Exits with 0 when it is done, and with 1 when it has paused or was aborted.
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// Follow it while it is paused, too
    #[arg(long)]
    through_pauses: bool,

    /// So long, at most, such as 10m [default: until it is over]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    limit: Option<Duration>,
}

/// Offer the release to nobody any more, until it is resumed
#[derive(Debug, clap::Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Go on with a paused campaign
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// So many groups may fail from now on [default: as before]
    #[arg(long, value_name = "NUMBER")]
    failures: Option<usize>,
}

/// End a campaign: groups that have begun go on, the others stay where they are
#[derive(Debug, clap::Args)]
pub(crate) struct AbortArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Let a wave begin that waits for a person
#[derive(Debug, clap::Args)]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// Its number, from 1
    #[arg(value_name = "WAVE")]
    wave: u32,
}

/// Give groups that have failed another chance
#[derive(Debug, clap::Args)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// The group [default: all that have failed]
    #[arg(value_name = "GROUP")]
    group: Option<String>,
}

/// Take the release back from the groups of a wave that have kept it; the campaign pauses
#[derive(Debug, clap::Args)]
pub(crate) struct RevertArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// Its number, from 1
    #[arg(value_name = "WAVE")]
    wave: u32,
}

/// Which campaign
#[derive(Debug, clap::Args)]
struct WhichArgs {
    /// Name or identity of the campaign; of several with one name the newest
    #[arg(value_name = "CAMPAIGN")]
    campaign: String,

    #[command(flatten)]
    server: ServerArgs,
}

impl WhichArgs {
    fn open(&self) -> Result<(Server, Campaign), CommandError> {
        let server = self.server.open()?;
        let campaign = server.campaign(&self.campaign)?;
        Ok((server, campaign))
    }
}

pub(super) fn campaign(ui: &Ui, command: &CampaignCommand) -> Result<(), CommandError> {
    match command {
        CampaignCommand::Create(args) => create(ui, args),
        CampaignCommand::List(args) => list(ui, args),
        CampaignCommand::Show(args) => show(ui, &args.which),
        CampaignCommand::Watch(args) => watch(ui, args),
        CampaignCommand::Pause(args) => steer(ui, &args.which, "pause", &Value::Null, "Paused"),
        CampaignCommand::Resume(args) => {
            let body = args.failures.map(|failures| json!({ "failures_max": failures }));
            steer(ui, &args.which, "resume", &body.unwrap_or_default(), "Resumed")
        }
        CampaignCommand::Abort(args) => steer(ui, &args.which, "abort", &Value::Null, "Aborted"),
        CampaignCommand::Approve(args) => {
            let what = format!("waves/{}/approve", args.wave);
            steer(ui, &args.which, &what, &Value::Null, &format!("Approved wave {} of", args.wave))
        }
        CampaignCommand::Retry(args) => retry(ui, args),
        CampaignCommand::Revert(args) => {
            let what = format!("waves/{}/revert", args.wave);
            let said = format!("Ordered the way back of wave {} of", args.wave);
            steer(ui, &args.which, &what, &Value::Null, &said)
        }
    }
}

fn create(ui: &Ui, args: &CreateArgs) -> Result<(), CommandError> {
    let server = args.server.open()?;
    let mut groups = Vec::new();
    for group in &args.groups {
        groups.push(server.group(group)?.id);
    }
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let mut body = json!({
        "name": args.name, "release": args.release, "labels": args.labels, "groups": groups,
        "canary": args.canary, "waves": args.waves, "soak_s": seconds(args.soak),
        "patience_s": seconds(args.patience), "failures_max": args.failures,
        "not_before": args.not_before,
    });
    // Servers that look for nothing do not know the word.
    if let (true, Some(fields)) = (args.despite_findings, body.as_object_mut()) {
        fields.insert("despite_findings".to_owned(), true.into());
    }
    let made: Value = server.post("/api/campaigns", &body)?;
    let of = |name: &str| made.pointer(&format!("/campaign/{name}")).and_then(Value::as_str);
    let (id, name) = (of("id").unwrap_or_default(), of("name").unwrap_or_default());
    ui.line(format_args!("Began the campaign {} ({id})", tame(name)))?;
    ui.note(format_args!("Follow it: lockstep campaign watch {id}"));
    ui.json(&made)
}

fn list(ui: &Ui, args: &ListArgs) -> Result<(), CommandError> {
    let server = args.server.open()?;
    if ui.is_json() {
        return ui.json(&server.get::<Value>("/api/campaigns")?);
    }
    let Campaigns { campaigns } = server.get("/api/campaigns")?;
    if campaigns.is_empty() {
        return ui.line("There is no campaign. The first one: lockstep campaign create RELEASE");
    }
    let head = ["CAMPAIGN", "STATE", "MADE", "BY", "IDENTITY", "WHY"].map(String::from).to_vec();
    let row = |it: &Campaign| {
        [&it.name, &it.state, moment(&it.made_at), &it.made_by, &it.id, &it.why].map(tame).to_vec()
    };
    let rows: Vec<_> = [head].into_iter().chain(campaigns.iter().map(row)).collect();
    ui.line(table(&rows))
}

fn show(ui: &Ui, which: &WhichArgs) -> Result<(), CommandError> {
    let (server, campaign) = which.open()?;
    if ui.is_json() {
        return ui.json(&server.get::<Value>(&format!("/api/campaigns/{}", campaign.id))?);
    }
    ui.line(paint::campaign(&campaign).join("\n"))
}

/// Where somebody looks on, the picture is drawn in its place; else a line for each change.
fn watch(ui: &Ui, args: &WatchArgs) -> Result<(), CommandError> {
    let (server, mut campaign) = args.which.open()?;
    let path = format!("/api/campaigns/{}", campaign.id);
    let mut picture = Picture::new(ui);
    let begun = Instant::now();
    loop {
        picture.draw(&campaign)?;
        let is_paused = campaign.state == "paused" && !args.through_pauses && !is_moving(&campaign);
        if campaign.is_over() && !is_moving(&campaign) || is_paused {
            break;
        }
        if args.limit.is_some_and(|limit| begun.elapsed() > limit) {
            let state = tame(&campaign.state);
            return Err(CommandError::failed(format!("The campaign is still {state}"))
                .hinted("It goes on without you. Look again: lockstep campaign show"));
        }
        sleep(LOOK_EVERY);
        match server.get::<Page<Campaign>>(&path) {
            Ok(page) => campaign = page.shown,
            Err(error) if error.is_passing() => picture.is_away(server.url()),
            Err(error) => return Err(error.into()),
        }
    }
    ui.json(&server.get::<Value>(&path)?)?;
    match campaign.state.as_str() {
        "done" => Ok(()),
        state => {
            let why = if campaign.why.is_empty() { "" } else { ": " };
            let text = format!("The campaign is {}{why}{}", tame(state), tame(&campaign.why));
            Err(CommandError::failed(text).hinted(
                "Groups that have begun end whole. To go on: lockstep campaign retry, or resume",
            ))
        }
    }
}

/// Whether a rollout of it goes on: what has begun is watched to its end.
fn is_moving(campaign: &Campaign) -> bool {
    campaign.count("began") > 0
}

/// What was drawn last.
struct Picture<'u> {
    ui: &'u Ui,
    lines: Vec<String>,
    is_terminal: bool,
    is_away: bool,
}

impl<'u> Picture<'u> {
    fn new(ui: &'u Ui) -> Self {
        let is_terminal = !ui.is_json() && std::io::stdout().is_terminal();
        Self { ui, lines: Vec::new(), is_terminal, is_away: false }
    }

    fn draw(&mut self, campaign: &Campaign) -> Result<(), CommandError> {
        self.is_away = false;
        let lines = paint::campaign(campaign);
        if lines == self.lines {
            return Ok(());
        }
        if self.is_terminal && !self.lines.is_empty() {
            // Up to where it was, and whatever stands below goes.
            self.ui.raw(format!("\x1b[{}A\x1b[J", self.lines.len()).as_bytes())?;
        }
        self.ui.line(lines.join("\n"))?;
        self.lines = lines;
        Ok(())
    }

    fn is_away(&mut self, url: &str) {
        if !std::mem::replace(&mut self.is_away, true) {
            self.lines.clear();
            self.ui.note(format_args!("Server `{url}` does not answer; groups go on without it"));
        }
    }
}

fn steer(
    ui: &Ui,
    which: &WhichArgs,
    what: &str,
    body: &Value,
    said: &str,
) -> Result<(), CommandError> {
    let (server, campaign) = which.open()?;
    let path = format!("/api/campaigns/{}/{what}", campaign.id);
    let answer: Value = match body {
        Value::Null => server.order(&path)?,
        body => server.post(&path, body)?,
    };
    ui.line(format_args!("{said} {}", tame(&campaign.name)))?;
    ui.json(&answer)
}

fn retry(ui: &Ui, args: &RetryArgs) -> Result<(), CommandError> {
    let (server, campaign) = args.which.open()?;
    let is_meant = |name: &str, id: &str| match &args.group {
        Some(group) => group == name || group == id,
        None => true,
    };
    let failed = campaign.groups.iter().filter(|it| it.standing == "failed");
    let failed: Vec<_> = failed.filter(|it| is_meant(&it.name, &it.group)).collect();
    if failed.is_empty() {
        let which = args.group.as_deref().unwrap_or("no group");
        return Err(CommandError::failed(match &args.group {
            Some(_) => format!("Group `{which}` has not failed in this campaign"),
            None => "No group has failed in this campaign".to_owned(),
        })
        .hinted("See how its groups stand: lockstep campaign show"));
    }
    for group in &failed {
        let path = format!("/api/campaigns/{}/groups/{}/retry", campaign.id, group.group);
        server.order::<Value>(&path)?;
        ui.line(format_args!("{} gets another chance", tame(&group.name)))?;
    }
    if campaign.state == "paused" {
        ui.note(format_args!("Let it go on: lockstep campaign resume {}", campaign.id));
    }
    let groups: Vec<_> = failed.iter().map(|it| it.group.as_str()).collect();
    ui.json(&json!({ "retried": groups }))
}

/// How often a campaign is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

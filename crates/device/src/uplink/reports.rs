//! The half that speaks: comes in, says how the group is, and hears what it should run.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use lockstep_proto::time::Instant;

use super::account::{Account, Pass, Place};
use super::wire::{self, Answer, Request, Trouble};
use super::words::{self, OrderAnswer, Refusal, Told, Welcome};
use super::{About, Uplink, unless};
use crate::dial::Dial;
use crate::http::Shell;
use crate::journal::{Level, Line};

/// How far the server is with this boot.
#[derive(Debug, Default)]
struct Heard {
    /// When it was told last.
    at: Option<Instant>,
    /// What of the group it should hear of soon, as it was then.
    news: String,
    /// The last line of the log that it has.
    line: u32,
    /// The tag of what it wants.
    tag: String,
    poll_ms: u64,
}

/// What was tried and did not come off.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Setback {
    Trouble(Trouble),
    /// The server said no: to what, and its own words.
    Refused {
        status: u16,
        text: String,
    },
    /// The flash does not take the credential.
    Storage,
}

impl From<Trouble> for Setback {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Speaks for as long as the device runs.
pub(super) async fn run<H: Shell, D: Dial>(shell: &H, dialer: &D, up: &Uplink) -> Infallible {
    let mut heard = Heard::default();
    let (mut pause_ms, mut last) = (PAUSE_MIN_MS, None);
    loop {
        match one(shell, dialer, up, &mut heard).await {
            Ok(()) => {
                if last.take().is_some() {
                    say(shell, Level::Notice, format!("server `{}` is back", place_of(up)));
                }
                pause_ms = PAUSE_MIN_MS;
                up.state.borrow_mut().is_connected = true;
            }
            Err(setback) => {
                up.state.borrow_mut().is_connected = false;
                // Once for each kind of trouble: a server that is down for a week is one line.
                if last.as_ref() != Some(&setback) {
                    say(shell, setback.level(), setback.text(&place_of(up)));
                }
                pause_ms = setback.pause_ms(pause_ms);
                last = Some(setback);
                shell.sleep_ms(pause_ms).await;
                pause_ms = (pause_ms * 2).min(PAUSE_MAX_MS);
            }
        }
    }
}

fn place_of(up: &Uplink) -> Place {
    let state = up.state.borrow();
    let place = state.account.as_ref().map(|account| account.place.clone());
    place.unwrap_or(Place { host: String::new(), port: 0 })
}

/// One request: whichever is due.
async fn one<H: Shell, D: Dial>(
    shell: &H,
    dialer: &D,
    up: &Uplink,
    heard: &mut Heard,
) -> Result<(), Setback> {
    let account = up.state.borrow().account.clone();
    let Some(account) = account else {
        shell.sleep_ms(LOOK_EVERY_MS).await;
        return Ok(());
    };
    match &account.pass {
        Pass::Token(token) => enroll(shell, dialer, up, &account, token).await,
        Pass::Credential { secret, .. } if is_due(shell, up, heard) => {
            check_in(shell, dialer, up, heard, &account.place, secret).await
        }
        Pass::Credential { secret, .. } => {
            wait(shell, dialer, up, heard, &account.place, secret).await
        }
    }
}

/// Whether the server should hear of the group now.
fn is_due<H: Shell>(shell: &H, up: &Uplink, heard: &Heard) -> bool {
    let has_news = up.state.borrow().has_news;
    shell.with(|now, node, _| {
        let Some(at) = heard.at else { return true };
        let since_ms = now.ms_since(at);
        let changed = || has_news || words::news_of(now, node) != heard.news;
        since_ms >= heard.poll_ms || (since_ms >= NEWS_EVERY_MS && changed())
    })
}

async fn enroll<H: Shell, D: Dial>(
    shell: &H,
    dialer: &D,
    up: &Uplink,
    account: &Account,
    token: &str,
) -> Result<(), Setback> {
    let id = shell.with(|_, node, _| node.setup().id);
    let body = format!(r#"{{"token":"{token}","id":"{id}"}}"#);
    let request = Request {
        method: "POST",
        path: "/api/lead/enroll",
        secret: None,
        headers: &[],
        body: &body,
        limit_ms: ANSWER_LIMIT_MS,
    };
    let answer = wire::ask(shell, dialer, &account.place, &request).await?;
    let text = good(shell, answer).await?;
    let welcome: Welcome = read(&text)?;
    let (group, secret) = (welcome.group, welcome.credential);
    let pass = Pass::Credential { group, secret };
    let account = Account { pass, ..account.clone() };
    if !shell.with(|_, node, flash| account.write(node, flash)) {
        return Err(Setback::Storage);
    }
    let text = format!("server `{}` looks after this group from now on", account.place);
    up.state.borrow_mut().account = Some(account);
    say(shell, Level::Notice, text);
    Ok(())
}

async fn check_in<H: Shell, D: Dial>(
    shell: &H,
    dialer: &D,
    up: &Uplink,
    heard: &mut Heard,
    place: &Place,
    secret: &str,
) -> Result<(), Setback> {
    let (offer, orders) = {
        let mut state = up.state.borrow_mut();
        state.has_news = false;
        (state.offer.clone(), state.orders.clone())
    };
    let platform = shell.platform();
    let said = shell.with(|now, node, _| {
        let lines: Vec<Line> =
            node.journal().lines_after(heard.line).take(LINES_AT_ONCE).cloned().collect();
        let last_line = lines.last().map_or(heard.line, |line| line.seq);
        let news = words::news_of(now, node);
        let about = words::rollout_of(node);
        let body = words::check_in(now, node, platform, &lines, offer.as_ref(), &orders);
        (body, now, news, last_line, about)
    });
    let (body, now, news, last_line, about) = said;
    let request = Request {
        method: "POST",
        path: "/api/lead/check-in",
        secret: Some(secret),
        headers: &[],
        body: &body,
        limit_ms: ANSWER_LIMIT_MS,
    };
    let answer = wire::ask(shell, dialer, place, &request).await;
    let answer = answer.map_err(|trouble| not_heard(up, trouble))?;
    let tag = answer.tag.clone().unwrap_or_default();
    let text = good(shell, answer).await?;
    let told: Told = read(&text)?;
    let poll_ms = u64::from(told.poll_s.clamp(POLL_S_MIN, POLL_S_MAX)) * 1000;
    *heard = Heard { at: Some(now), news, line: last_line, tag, poll_ms };
    hear(up, told, about, &orders);
    Ok(())
}

/// What was to be said is to be said again.
fn not_heard(up: &Uplink, trouble: Trouble) -> Setback {
    up.state.borrow_mut().has_news = true;
    Setback::Trouble(trouble)
}

/// Takes down what the server wants; `said` are the orders that it has answers to now.
fn hear(up: &Uplink, told: Told, about: About, said: &[OrderAnswer]) {
    let mut state = up.state.borrow_mut();
    state.orders.retain(|answer| !said.contains(answer));
    let offer = told.release.as_ref().map(|release| release.offer.as_str());
    if state.offer.as_ref().is_some_and(|it| offer != Some(it.id.as_str())) {
        state.offer = None;
        state.retry_at = None;
    }
    state.wanted = Some((told, about));
}

/// Waits until the server wants something else, or something is to be said.
async fn wait<H: Shell, D: Dial>(
    shell: &H,
    dialer: &D,
    up: &Uplink,
    heard: &mut Heard,
    place: &Place,
    secret: &str,
) -> Result<(), Setback> {
    let headers = [("If-None-Match", heard.tag.clone()), ("Prefer", format!("wait={WAIT_S}"))];
    let request = Request {
        method: "GET",
        path: "/api/lead/desired",
        secret: Some(secret),
        headers: &headers,
        body: "",
        limit_ms: WAIT_S * 1000 + ANSWER_LIMIT_MS,
    };
    let something = async {
        while !is_due(shell, up, heard) {
            shell.sleep_ms(LOOK_EVERY_MS).await;
        }
    };
    let Some(answer) = unless(wire::ask(shell, dialer, place, &request), something).await else {
        return Ok(());
    };
    let answer = answer?;
    if answer.status == NOT_MODIFIED {
        return Ok(());
    }
    let tag = answer.tag.clone().unwrap_or_default();
    let text = good(shell, answer).await?;
    let told: Told = read(&text)?;
    heard.tag = tag;
    // It has heard of nothing new since it was told last.
    let about = up.state.borrow().wanted.as_ref().and_then(|(_, about)| *about);
    hear(up, told, about, &[]);
    Ok(())
}

/// The text of an answer that is a yes.
async fn good<H: Shell, L: embedded_io_async::Read>(
    shell: &H,
    answer: Answer<L>,
) -> Result<String, Setback> {
    let status = answer.status;
    let text = answer.text(shell).await?;
    if (200..300).contains(&status) {
        return Ok(text);
    }
    let refusal: Refusal = serde_json::from_str(&text).unwrap_or_default();
    let text = match (refusal.error.message.as_str(), refusal.error.hint.as_str()) {
        ("", _) => format!("status {status}"),
        (message, "") => message.into(),
        (message, hint) => format!("{message}; {hint}"),
    };
    Err(Setback::Refused { status, text })
}

fn read<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, Setback> {
    serde_json::from_str(text).map_err(|_| Setback::Trouble(Trouble::NotSpoken))
}

impl Setback {
    const fn level(&self) -> Level {
        match self {
            Self::Trouble(Trouble::NotSpoken) | Self::Refused { .. } | Self::Storage => {
                Level::Error
            }
            Self::Trouble(_) => Level::Warning,
        }
    }

    fn text(&self, place: &Place) -> String {
        match self {
            Self::Trouble(trouble) => trouble.text(place),
            Self::Refused { text, .. } => format!("server `{place}` says no: {text}"),
            Self::Storage => {
                format!("the flash does not take what server `{place}` has given")
            }
        }
    }

    /// A no does not become a yes by asking often.
    const fn pause_ms(&self, pause_ms: u64) -> u64 {
        match self {
            Self::Refused { status: 401 | 403, .. } | Self::Storage => PAUSE_MAX_MS,
            Self::Refused { .. } | Self::Trouble(_) => pause_ms,
        }
    }
}

pub(super) fn say<H: Shell>(shell: &H, level: Level, text: String) {
    shell.with(|now, node, _| node.log(now, level, text));
    shell.wake();
}

const NOT_MODIFIED: u16 = 304;
/// How often the device looks whether there is something to say, in milliseconds.
const LOOK_EVERY_MS: u64 = 250;
/// News come at most this often, in milliseconds: a rollout changes all the time.
const NEWS_EVERY_MS: u64 = 1_000;
/// So long a server may hold back its answer while there is nothing new, in seconds.
const WAIT_S: u64 = 50;
/// So long it may take for any other answer, in milliseconds.
const ANSWER_LIMIT_MS: u64 = 15_000;
/// A server cannot make a lead come more often than this, or more rarely, in seconds.
const POLL_S_MIN: u32 = 5;
const POLL_S_MAX: u32 = 86_400;
/// Between a setback and the next try, in milliseconds; doubled each time.
const PAUSE_MIN_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;
/// Lines of the log that one check-in brings.
const LINES_AT_ONCE: usize = 32;

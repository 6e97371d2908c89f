//! A lead's way to its server: it says how its group is, asks what the group should run, and
//! fetches it. The same on a chip and on a desk, over any connection that the shell makes.
//!
//! ```text
//!  reports ──► check-in ─────► server        orders, an offer
//!     ▲          │ news, or       │                │
//!     │          │ every poll     ▼                ▼
//!  the node      └──────── wait for news ──► what is wanted ──► works: abort, revert, fetch
//! ```
//!
//! The server offers, this lead decides: preflight, trial and verdict are its own, and a server
//! that is away, slow or wrong delays releases and nothing else. An offer is taken up only as long
//! as the server has heard of everything that became of the rollout before, so that what came to
//! nothing once is not begun again by a lead that has forgotten it.
//!
//! # Not here
//!
//! TLS: the release's own signature is what a device trusts.

mod account;
mod reports;
mod wire;
mod words;
mod works;

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::convert::Infallible;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use lockstep_proto::id::RolloutId;
use lockstep_proto::time::Instant;

use crate::dial::Dial;
use crate::http::{Api, Shell};
use account::{Account, Pass};
use words::{OfferAnswer, OrderAnswer, Told};

pub use account::Place;
pub(crate) use words::Offered;

/// What connects the lead to its server. One for each device, kept in [`Api`].
#[derive(Debug, Default)]
pub(crate) struct Uplink {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    account: Option<Account>,
    /// Whether the server has answered the last time.
    is_connected: bool,
    /// What the server wants, and the rollout that it knew of when it said so.
    wanted: Option<(Told, About)>,
    /// The offer that a person has said yes to.
    asked: Option<String>,
    /// What is to be said of the present offer.
    offer: Option<OfferAnswer>,
    /// A refused offer is looked at again then.
    retry_at: Option<Instant>,
    /// What is to be said of orders.
    orders: Vec<OrderAnswer>,
    /// Something is to be said soon.
    has_news: bool,
}

/// The last or present rollout, and whether it was over.
type About = Option<(RolloutId, bool)>;

/// How a device is to be connected, as a page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// Where the server is.
    pub(crate) place: Place,
    /// Whether it has let the lead in.
    pub(crate) is_enrolled: bool,
    /// Whether it has answered the last time.
    pub(crate) is_connected: bool,
    /// The release that it offers.
    pub(crate) offered: Option<Offered>,
    /// Whether that waits for a person.
    pub(crate) waits: bool,
}

impl Uplink {
    /// How things are; `None`: the device has no server.
    pub(crate) fn view(&self) -> Option<View> {
        let state = self.state.borrow();
        let account = state.account.as_ref()?;
        let offered = state.wanted.as_ref().and_then(|(told, _)| told.release.clone());
        Some(View {
            place: account.place.clone(),
            is_enrolled: matches!(account.pass, Pass::Credential { .. }),
            is_connected: state.is_connected,
            waits: offered.as_ref().is_some_and(|it| waits(it, state.asked.as_deref())),
            offered,
        })
    }

    /// A person says yes to what is offered. `false`: nothing waits for that.
    pub(crate) fn install(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let offered = state.wanted.as_ref().and_then(|(told, _)| told.release.clone());
        match offered {
            Some(offered) if waits(&offered, state.asked.as_deref()) => {
                state.asked = Some(offered.offer);
                true
            }
            Some(_) | None => false,
        }
    }
}

/// Whether an offer waits for a person's word.
fn waits(offered: &Offered, asked: Option<&str>) -> bool {
    offered.install != "now" && asked != Some(offered.offer.as_str())
}

/// A server that a device is given at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAtStart {
    /// Where it is.
    pub place: Place,
    /// A token that lets the lead in, if it is not in already.
    pub token: Option<String>,
}

/// Looks after the way to the server, until it is dropped. What was given at start takes the place
/// of what the record knows, if it is another server or a token that was not used yet.
pub async fn run<H: Shell, D: Dial>(
    shell: &H,
    dialer: &D,
    api: &Api,
    given: Option<&ServerAtStart>,
) {
    let account = shell.with(|_, node, flash| account::at_start(node, flash, given));
    let Some(account) = account else { return };
    api.uplink.state.borrow_mut().account = Some(account);
    let reports = reports::run(shell, dialer, &api.uplink);
    let works = works::run(shell, dialer, api);
    match both(reports, works).await {}
}

/// Two things that go on for ever, beside each other.
async fn both(
    one: impl Future<Output = Infallible>,
    other: impl Future<Output = Infallible>,
) -> Infallible {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| match one.as_mut().poll(context) {
        Poll::Ready(never) => Poll::Ready(never),
        Poll::Pending => other.as_mut().poll(context),
    })
    .await
}

/// What `work` comes to, unless `other` is done first.
async fn unless<T>(work: impl Future<Output = T>, other: impl Future<Output = ()>) -> Option<T> {
    let (mut work, mut other) = (pin!(work), pin!(other));
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => other.as_mut().poll(context).map(|()| None),
    })
    .await
}

//! The half that acts: carries out orders, and takes up what is offered.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::convert::Infallible;

use lockstep_proto::version::ReleaseVersion;
use lockstep_rollout::Phase;

use super::account::{Pass, Place};
use super::reports::say;
use super::wire::{self, Request, Trouble};
use super::words::{self, OfferAnswer, Offered, Order, OrderAnswer};
use super::{Uplink, waits};
use crate::dial::Dial;
use crate::http::answer::Problem;
use crate::http::gate::Part;
use crate::http::rollout::{self, Progress, Upload};
use crate::http::{Api, Shell};
use crate::journal::Level;

/// Acts for as long as the device runs.
pub(super) async fn run<H: Shell, D: Dial>(shell: &H, dialer: &D, api: &Api) -> Infallible {
    let up = &api.uplink;
    let mut pause_ms = PAUSE_MIN_MS;
    loop {
        if let Some(order) = next_order(up) {
            carry_out(shell, up, order).await;
            continue;
        }
        let Some((place, secret, offered, part)) = next_offer(shell, up) else {
            pause_ms = PAUSE_MIN_MS;
            shell.sleep_ms(LOOK_EVERY_MS).await;
            continue;
        };
        let fetch = Fetch { shell, api, place: &place, secret: &secret, offered: &offered };
        match fetch.run(dialer, part).await {
            Ok(()) => pause_ms = PAUSE_MIN_MS,
            Err(Ended::Cut(why)) => {
                let text = format!("release {} is fetched on in a while: {why}", offered.version);
                say(shell, Level::Warning, text);
                shell.sleep_ms(pause_ms).await;
                pause_ms = (pause_ms * 2).min(PAUSE_MAX_MS);
            }
            Err(Ended::Refused(problem)) => refuse(shell, up, &offered, &problem),
        }
    }
}

/// An order that was not begun before.
fn next_order(up: &Uplink) -> Option<Order> {
    let state = up.state.borrow();
    let (told, _) = state.wanted.as_ref()?;
    let is_answered = |order: &&Order| !state.orders.iter().any(|it| it.id == order.id);
    told.orders.iter().find(is_answered).cloned()
}

/// Carries an order out, and takes down what became of it. What was begun before a restart is not
/// begun again: going back twice would be going forward.
async fn carry_out<H: Shell>(shell: &H, up: &Uplink, order: Order) {
    let refused = match (begin(shell, up, &order), order.what.as_str()) {
        (Begun::Before, _) => String::new(),
        (Begun::NotDurable, _) => String::from("the device could not write its flash"),
        (Begun::Now, "abort") => refusal(rollout::abort(shell)),
        (Begun::Now, "revert") => refusal(rollout::revert(shell).await),
        (Begun::Now, other) => format!("this firmware does not know the order `{other}`"),
    };
    let text = match refused.as_str() {
        "" => format!("carried out the server's order: {}", order.what),
        why => format!("did not carry out the server's order `{}`: {why}", order.what),
    };
    say(shell, Level::Notice, text);
    let mut state = up.state.borrow_mut();
    state.orders.push(OrderAnswer { id: order.id, refused });
    if state.orders.len() > ORDERS_MAX {
        state.orders.remove(0);
    }
    state.has_news = true;
}

/// Whether an order is to be carried out now.
enum Begun {
    Now,
    Before,
    NotDurable,
}

/// Makes durable that it is begun.
fn begin<H: Shell>(shell: &H, up: &Uplink, order: &Order) -> Begun {
    let mut state = up.state.borrow_mut();
    let Some(account) = &mut state.account else { return Begun::NotDurable };
    if account.order == order.id {
        return Begun::Before;
    }
    account.order.clone_from(&order.id);
    let account = account.clone();
    match shell.with(|_, node, flash| account.write(node, flash)) {
        true => Begun::Now,
        false => Begun::NotDurable,
    }
}

fn refusal<T>(result: Result<T, Problem>) -> String {
    result.err().map(|problem| problem.message().to_string()).unwrap_or_default()
}

/// What is to be fetched now, and from which byte on if some of it is there.
fn next_offer<H: Shell>(shell: &H, up: &Uplink) -> Option<(Place, String, Offered, Option<Part>)> {
    let mut state = up.state.borrow_mut();
    let (told, about) = state.wanted.as_ref()?;
    let offered = told.release.clone()?;
    let account = state.account.as_ref()?;
    let Pass::Credential { secret, .. } = &account.pass else { return None };
    let (place, secret, about) = (account.place.clone(), secret.clone(), *about);
    let retry_at = state.retry_at;
    let next = shell.with(|now, node, _| {
        // The server has not heard of everything yet.
        if words::rollout_of(node) != about && !is_on_its_way(node, &offered) {
            return None;
        }
        if retry_at.is_some_and(|at| now < at) {
            return None;
        }
        match node.lead.as_ref()?.rollout.as_ref().filter(|rollout| !rollout.is_over()) {
            None => Some(None),
            Some(_) => {
                let (offset, _) =
                    is_on_its_way(node, &offered).then(|| node.conducting())??.upload?;
                Some(Some(Part { offset, size_bytes: offered.size_bytes }))
            }
        }
    })?;
    if next.is_none() && waits(&offered, state.asked.as_deref()) {
        let id = offered.offer.clone();
        let answer = OfferAnswer { id, state: "waits", refusals: Vec::new(), text: String::new() };
        if state.offer.as_ref() != Some(&answer) {
            state.offer = Some(answer);
            state.has_news = true;
        }
        return None;
    }
    Some((place, secret, offered, next))
}

/// Whether the open rollout is to what is offered, and lacks bytes of its bundle.
fn is_on_its_way<A: crate::setup::Application>(
    node: &crate::node::Node<A>,
    offered: &Offered,
) -> bool {
    let Some(conducting) = node.conducting() else { return false };
    let version = ReleaseVersion::from_number(conducting.record.number);
    let is_of_size = |size_bytes| size_bytes == offered.size_bytes || size_bytes == 0;
    conducting.record.phase == Phase::Staging
        && conducting.upload.is_some_and(|(_, size_bytes)| is_of_size(size_bytes))
        && offered.version.parse() == Ok(version)
}

/// The group does not take it now. It is looked at again in a while: who did not answer may then.
fn refuse<H: Shell>(shell: &H, up: &Uplink, offered: &Offered, problem: &Problem) {
    let text =
        format!("release {} of the server is refused: {}", offered.version, problem.message());
    say(shell, Level::Warning, text);
    let refusals = match problem.refusal_codes() {
        codes if codes.is_empty() => alloc::vec![problem.code()],
        codes => codes,
    };
    let (id, text) = (offered.offer.clone(), problem.message().to_string());
    let mut state = up.state.borrow_mut();
    state.offer = Some(OfferAnswer { id, state: "refused", refusals, text });
    state.retry_at = Some(shell.with(|now, _, _| now) + RETRY_MS);
    state.has_news = true;
}

/// A bundle on its way from the server into the group.
struct Fetch<'a, H> {
    shell: &'a H,
    api: &'a Api,
    place: &'a Place,
    secret: &'a str,
    offered: &'a Offered,
}

/// Why a bundle has not come.
enum Ended {
    /// It goes on from where it is.
    Cut(String),
    /// The group does not take it.
    Refused(Problem),
}

impl<H: Shell> Fetch<'_, H> {
    /// Fetches the bundle, in as many requests as there are parts that somebody needs.
    async fn run<D: Dial>(&self, dialer: &D, mut part: Option<Part>) -> Result<(), Ended> {
        for request in 0..REQUESTS_MAX {
            match self.fetch(dialer, part, request == 0).await? {
                None => return Ok(()),
                next => part = next,
            }
        }
        Err(Ended::Cut(format!("its bundle has more than {REQUESTS_MAX} parts that nobody needs")))
    }

    /// One request. Returns from where on to go on, if it is not all of it.
    async fn fetch<D: Dial>(
        &self,
        dialer: &D,
        part: Option<Part>,
        is_first: bool,
    ) -> Result<Option<Part>, Ended> {
        let offset = part.map_or(0, |part| part.offset);
        let headers = [("Range", format!("bytes={offset}-"))];
        let request = Request {
            method: "GET",
            path: &self.offered.bundle,
            secret: Some(self.secret),
            headers: &headers,
            body: "",
            limit_ms: ANSWER_LIMIT_MS,
        };
        let cut = |trouble: Trouble| Ended::Cut(trouble.text(self.place));
        let mut answer = wire::ask(self.shell, dialer, self.place, &request).await.map_err(cut)?;
        let size_bytes = self.offered.size_bytes;
        let fits = match (answer.status, answer.range) {
            (206, Some((first, size))) => first == offset && size == size_bytes,
            (200, _) => offset == 0,
            _ => false,
        };
        if !fits {
            let status = answer.status;
            return Err(Ended::Cut(format!(
                "server `{}` answers with status {status}",
                self.place
            )));
        }
        let Some(upload) = self.begin(part, is_first)? else {
            self.is_taken();
            return Ok(None);
        };
        loop {
            let piece = answer.next(self.shell).await.map_err(cut)?;
            if piece.is_empty() {
                return Err(Ended::Refused(upload.end_of_bytes()));
            }
            match upload.push(&piece).await.map_err(ended)? {
                Progress::Complete(_) => {
                    self.is_taken();
                    return Ok(None);
                }
                Progress::Taken => {
                    let Some((skipped_bytes, offset)) = upload.skip() else { continue };
                    let text = format!("{skipped_bytes} bytes of the bundle are of no use here");
                    say(self.shell, Level::Info, text);
                    return Ok(Some(Part { offset, size_bytes }));
                }
            }
        }
    }

    /// `None`: the group has gone on while a part was left out, since nobody needs what comes
    /// behind that part either.
    fn begin(&self, part: Option<Part>, is_first: bool) -> Result<Option<Upload<'_, H>>, Ended> {
        let size_bytes = self.offered.size_bytes;
        let (shell, turn) = (self.shell, &self.api.upload);
        let length = part.map_or(size_bytes, |part| size_bytes.saturating_sub(part.offset));
        let upload = match Upload::begin(shell, turn, length, part, false) {
            Err(problem) if !is_first && problem.code() == "nothing-to-continue" => {
                return Ok(None);
            }
            other => other.map_err(ended)?,
        };
        if !is_first {
            return Ok(Some(upload));
        }
        let version = &self.offered.version;
        say(shell, Level::Notice, format!("fetches release {version} from `{}`", self.place));
        let id = self.offered.offer.clone();
        let (state, refusals, text) = ("fetching", Vec::new(), String::new());
        let mut up = self.api.uplink.state.borrow_mut();
        up.offer = Some(OfferAnswer { id, state, refusals, text });
        up.has_news = true;
        Ok(Some(upload))
    }

    fn is_taken(&self) {
        let mut up = self.api.uplink.state.borrow_mut();
        up.offer = None;
        up.has_news = true;
    }
}

/// What stands in the way now, and what is for good.
fn ended(problem: Problem) -> Ended {
    match problem.code() {
        "busy" | "cut" | "timed-out" | "wrong-offset" | "nothing-to-continue" | "not-begun" => {
            Ended::Cut(problem.message().to_string())
        }
        _ => Ended::Refused(problem),
    }
}

/// How often the device looks whether there is something to do, in milliseconds.
const LOOK_EVERY_MS: u64 = 250;
/// More parts to leave out no bundle has: of each role its image and its patches.
const REQUESTS_MAX: usize = 128;
/// So long a server may take until a bundle begins to come, in milliseconds.
const ANSWER_LIMIT_MS: u64 = 15_000;
/// Between a cut and the next try, in milliseconds; doubled each time.
const PAUSE_MIN_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;
/// What was refused is tried again after so long, in milliseconds.
const RETRY_MS: u64 = 300_000;
/// Answers to orders that wait to be told, at most.
const ORDERS_MAX: usize = 8;

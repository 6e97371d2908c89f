//! What a lead says to its server, and what it is told: the documents of the device's own API in
//! one body, and a short answer.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use lockstep_proto::id::RolloutId;
use lockstep_proto::time::Instant;
use serde::{Deserialize, Serialize};

use crate::http::{Platform, group, views};
use crate::journal::Line;
use crate::node::Node;
use crate::setup::Application;

/// What a server wants of its group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Told {
    /// So often the lead comes when nothing happens, in seconds.
    pub(super) poll_s: u32,
    /// The release that it may go to.
    pub(super) release: Option<Offered>,
    /// What a person has ordered.
    #[serde(default)]
    pub(super) orders: Vec<Order>,
}

/// A release that the group may go to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Offered {
    /// Which offer.
    pub(crate) offer: String,
    /// The release's version.
    pub(crate) version: String,
    /// Where its bundle is on the server.
    pub(crate) bundle: String,
    /// How long it is.
    pub(crate) size_bytes: u32,
    /// `now`, or `ask`: a person says so first.
    pub(crate) install: String,
    /// What is new, for people.
    #[serde(default)]
    pub(crate) description: String,
}

/// What a person has ordered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Order {
    /// Which order.
    pub(super) id: String,
    /// `abort` or `revert`.
    pub(super) what: String,
}

/// What the lead makes of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct OfferAnswer {
    /// Which offer.
    pub(super) id: String,
    /// `waits`, `fetching` or `refused`.
    pub(super) state: &'static str,
    /// Codes of what preflight refused.
    pub(super) refusals: Vec<&'static str>,
    /// For people.
    pub(super) text: String,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct OrderAnswer {
    /// Which order.
    pub(super) id: String,
    /// Empty: it was carried out; else why not.
    pub(super) refused: String,
}

/// What an enrolment is answered with.
#[derive(Debug, Deserialize)]
pub(super) struct Welcome {
    pub(super) group: String,
    pub(super) credential: String,
}

/// How a server says no.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Refusal {
    pub(super) error: RefusalText,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct RefusalText {
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) hint: String,
}

#[derive(Serialize)]
struct LineJson<'a> {
    seq: u32,
    level: &'static str,
    text: &'a str,
}

/// The body of a check-in.
pub(super) fn check_in<A: Application>(
    now: Instant,
    node: &mut Node<A>,
    platform: Platform,
    lines: &[Line],
    offer: Option<&OfferAnswer>,
    orders: &[OrderAnswer],
) -> String {
    let lines = lines.iter();
    let lines = lines.map(|it| LineJson { seq: it.seq, level: it.level.as_str(), text: &it.text });
    let lines: Vec<_> = lines.collect();
    let id = node.setup().id;
    let (version, health) =
        (views::version_text(now, node), views::health_text(now, node, platform));
    let (group, rollout) = (group::text(now, node), views::rollout(node, Some(now)));
    let history = views::history_text(node);
    let (lines, offer, orders) =
        (views::json_text(&lines), views::json_text(&offer), views::json_text(&orders));
    let mut body = format!(r#"{{"id":"{id}","documents":{{"version":{version},"group":{group},"#);
    body += &format!(r#""health":{health},"rollout":{rollout},"history":{history}}},"#);
    body + &format!(r#""lines":{lines},"offer":{offer},"orders":{orders}}}"#)
}

/// What a server should hear of soon when it changes: the rollout, who is there, and on what.
pub(super) fn news_of<A: Application>(now: Instant, node: &Node<A>) -> String {
    let mut text = views::rollout(node, None);
    let fresh_ms = node.setup().pace.link_fresh_ms;
    for peer in node.peers().all() {
        let number = peer.announced.map_or(0, |announced| announced.number);
        let (is_linked, fits) = (peer.is_linked(now, fresh_ms), peer.gate.map(|gate| gate.is_ok()));
        text += &format!("{} {number} {is_linked} {fits:?};", peer.id);
    }
    text
}

/// The last or present rollout, and whether it is over: what an answer of the server is about.
pub(super) fn rollout_of<A: Application>(node: &Node<A>) -> Option<(RolloutId, bool)> {
    let rollout = node.lead.as_ref()?.rollout.as_ref()?;
    Some((rollout.record().id, rollout.is_over()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Level;

    /// A server in the field says it, and stays as it is.
    #[test]
    fn what_servers_in_the_field_say_is_read() {
        let golden = include_str!("../../../proto/tests/golden/lead-desired.json");
        let told: Told = serde_json::from_str(golden).unwrap();
        let release = Offered {
            offer: "1f02c5".into(),
            version: "1.1.0".into(),
            bundle: "/api/lead/bundles/bc6d01".into(),
            size_bytes: 529_408,
            install: "ask".into(),
            description: "spring".into(),
        };
        let orders = alloc::vec![Order { id: "96cc01".into(), what: "revert".into() }];
        assert_eq!(told, Told { poll_s: 300, release: Some(release), orders });
    }

    /// Servers in the field read it. The documents are held against the golden file by a real lead,
    /// in the command's tests.
    #[test]
    fn what_a_lead_adds_to_its_documents_is_what_servers_in_the_field_read() {
        let golden = include_str!("../../../proto/tests/golden/lead-check-in.json");
        let line = LineJson { seq: 13, level: Level::Notice.as_str(), text: "settled: keep 1.1.0" };
        let offer = OfferAnswer {
            id: "1f02c5".into(),
            state: "refused",
            refusals: alloc::vec!["unreachable"],
            text: "transmitter does not answer".into(),
        };
        let order = OrderAnswer { id: "96cc01".into(), refused: String::new() };
        let blank = |text: &str| text.replace([' ', '\n'], "");
        let golden = blank(golden);
        for said in
            [views::json_text(&[line]), views::json_text(&Some(offer)), views::json_text(&[order])]
        {
            assert!(golden.contains(&blank(&said)), "{said}");
        }
    }
}

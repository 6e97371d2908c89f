//! What somebody orders at a group's `command` topic.
//!
//! A message that stays at the broker would be an order again at every connection, so one that was
//! retained before the connection began is none.

use std::fmt;
use std::str::FromStr;

use super::facts::{Scene, offered};
use crate::fleet::excerpt;
use crate::http::ordered;
use crate::server::Server;

/// What may be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Bring the group to the newest release that there is for it.
    Install,
    /// End its open rollout.
    Abort,
    /// Take its last rollout back.
    Revert,
}

impl FromStr for Order {
    type Err = NoOrder;

    fn from_str(text: &str) -> Result<Self, NoOrder> {
        match text.trim() {
            "install" => Ok(Self::Install),
            "abort" => Ok(Self::Abort),
            "revert" => Ok(Self::Revert),
            _ => Err(NoOrder { found: excerpt(text) }),
        }
    }
}

/// It is something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoOrder {
    /// Its beginning.
    found: String,
}

impl fmt::Display for NoOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no order, expected `install`, `abort` or `revert`", self.found)
    }
}

/// Does it, as the HTTP API would; what was done, or why not, for people. `None`: there is no such
/// group.
pub(super) async fn obey(
    server: &Server,
    group: &str,
    order: &[u8],
) -> Option<Result<String, String>> {
    match server.store.group(group).await {
        Ok(Some(_)) => (),
        Ok(None) => return None,
        Err(error) => return Some(Err(error.to_string())),
    }
    let order = String::from_utf8_lossy(order.get(..ORDER_BYTES_MAX).unwrap_or(order));
    Some(match order.parse() {
        Err(error) => Err(NoOrder::to_string(&error)),
        Ok(Order::Install) => install(server, group).await,
        Ok(Order::Abort) => told(ordered::order(server, group, "abort", WHO).await, "abort"),
        Ok(Order::Revert) => told(ordered::order(server, group, "revert", WHO).await, "revert"),
    })
}

fn told(done: Result<(), String>, what: &str) -> Result<String, String> {
    done.map(|()| format!("{what} was ordered; the lead carries it out when it comes"))
}

async fn install(server: &Server, id: &str) -> Result<String, String> {
    let away = |error: crate::store::StoreError| error.to_string();
    let store = &server.store;
    let group = store.group(id).await.map_err(away)?.ok_or("the group was removed")?;
    let devices = store.devices(id).await.map_err(away)?;
    let scene = Scene::new(group, devices, &offered(store).await.map_err(away)?);
    let newest = scene.newest_for(None).ok_or("there is no release for this group")?;
    let version = &newest.version;
    if scene.group.number == newest.number {
        return Err(format!("the group runs {version} already, the newest release for it"));
    }
    ordered::install(server, id, &newest.id, WHO).await?;
    Ok(format!("{version} is offered to the group"))
}

/// As it stands in the audit.
const WHO: &str = "mqtt";
/// Bytes of an order that are looked at.
const ORDER_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_one_of_three_words_and_anything_else_is_said_again_in_part() {
        assert_eq!("install".parse(), Ok(Order::Install));
        assert_eq!(" abort\n".parse(), Ok(Order::Abort));
        assert_eq!("revert".parse(), Ok(Order::Revert));
        let error = "INSTALL\u{7} everything that there is, and at once".parse::<Order>();
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("`INSTALL? everything"), "{text}");
        assert!("".parse::<Order>().is_err());
    }
}

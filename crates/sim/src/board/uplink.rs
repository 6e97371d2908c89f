//! The board's way to a fleet's server.

use std::rc::Rc;

use lockstep_device::http::Api;
use lockstep_device::uplink::{self, ServerAtStart};
use tokio::task::JoinSet;

use super::boot::Running;
use super::mqtt::Tcp;

/// Begins to look after the way to the server in this boot; ends with the value that is returned.
pub(super) fn start(
    given: Option<&ServerAtStart>,
    running: &Rc<Running>,
    api: &Rc<Api>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (given, running, api) = (given.cloned(), Rc::clone(running), Rc::clone(api));
    tasks.spawn_local(async move {
        uplink::run(&*running, &Tcp, &api, given.as_ref()).await;
    });
    tasks
}

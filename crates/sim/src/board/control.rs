//! Orders to a board from outside of its world, line by line on standard input: how bad the radio
//! is, or that whoever started it has gone.

use std::io::BufRead as _;

use tokio::sync::mpsc::{Receiver, Sender, channel};

use lockstep_device::channel::Channel;

use crate::radio::Impairments;

/// What standard input is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlOptions {
    /// Lines are orders.
    pub takes_orders: bool,
    /// The board is switched off when the other end is closed.
    pub ends_with_input: bool,
}

/// What a line, or the end of all lines, says.
#[derive(Debug)]
pub(super) enum Order {
    /// `impair loss=50`, `impair down`, `impair none`.
    Impair(Impairments),
    /// `channel 11`: the access point is there now.
    Channel(Channel),
    /// A line that is none.
    Strange(String),
    /// The other end was closed.
    Off,
}

/// Where orders come from.
#[derive(Debug)]
pub(super) struct Control {
    orders: Option<Receiver<Order>>,
}

impl Control {
    /// Reads standard input in a thread of its own: a process cannot wait for it and go on.
    pub(super) fn listen(options: ControlOptions) -> Self {
        if options == ControlOptions::default() {
            return Self { orders: None };
        }
        let (sender, orders) = channel(ORDERS_WAITING_MAX);
        std::thread::spawn(move || read_lines(options, &sender));
        Self { orders: Some(orders) }
    }

    /// The next order; waits for ever if there will be none.
    pub(super) async fn next(&mut self) -> Order {
        loop {
            match &mut self.orders {
                Some(orders) => match orders.recv().await {
                    Some(order) => return order,
                    None => self.orders = None,
                },
                None => std::future::pending().await,
            }
        }
    }
}

fn read_lines(options: ControlOptions, sender: &Sender<Order>) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if !options.takes_orders || line.trim().is_empty() {
            continue;
        }
        if sender.blocking_send(parse(line.trim())).is_err() {
            return;
        }
    }
    if options.ends_with_input {
        // The board is gone if it cannot be told.
        let _ = sender.blocking_send(Order::Off);
    }
}

fn parse(line: &str) -> Order {
    let strange = |why: String| Order::Strange(format!("order `{line}` is not understood: {why}"));
    match line.split_once(char::is_whitespace) {
        Some(("impair", how)) => match how.trim().parse() {
            Ok(impairments) => Order::Impair(impairments),
            Err(error) => strange(format!("{error}")),
        },
        Some(("channel", which)) => match which.trim().parse().ok().and_then(Channel::new) {
            Some(channel) => Order::Channel(channel),
            None => strange("channels have numbers from 1 to 14".to_owned()),
        },
        _ => strange(
            "expected `impair` and how bad the radio is to be, or `channel` and its number"
                .to_owned(),
        ),
    }
}

const ORDERS_WAITING_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_understood_whole_or_said_to_be_strange() {
        let Order::Impair(impairments) = parse("impair  loss=50,down") else {
            panic!("not understood");
        };
        assert_eq!((impairments.loss_percent, impairments.down), (50, true));
        assert!(matches!(parse("channel 11"), Order::Channel(it) if it.number() == 11));
        for line in [
            "impair",
            "channel",
            "channel 0",
            "channel 15",
            "impair loss=101",
            "loss=50",
            "impair down deaf",
        ] {
            assert!(matches!(parse(line), Order::Strange(_)), "{line}");
        }
    }
}

//! A group on the screen of a terminal: what was heard of it last, and how that looks.
//!
//! The device is asked by a thread of its own, so that a device that does not answer never holds up
//! the screen.

mod screen;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::api::{LogLine, Logs, Rollout, Version};
use crate::client::{Client, ClientError};
use crate::error::CommandError;
use crate::follow;

pub(crate) use screen::{Colours, draw, picture};

/// One round of questions.
#[derive(Debug)]
pub(crate) enum News {
    /// All were answered.
    Answers(Box<Answers>),
    /// The device does not answer; it may be rebooting.
    Silence,
    /// It answers what nobody expects.
    Trouble(String),
}

/// What a device says of itself and its group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    pub(crate) version: Version,
    pub(crate) rollout: Option<Rollout>,
    pub(crate) logs: Vec<LogLine>,
}

/// What is known of the group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) device: String,
    pub(crate) answers: Answers,
    /// Since when nothing was heard.
    pub(crate) silent_since: Option<Instant>,
    pub(crate) trouble: Option<String>,
}

impl Group {
    /// Asks once, so that what cannot work fails at once.
    pub(crate) fn first(client: &Client) -> Result<Self, CommandError> {
        let answers = ask(client)?;
        let device = client.device().to_owned();
        Ok(Self { device, answers, silent_since: None, trouble: None })
    }

    /// Takes in what was heard.
    pub(crate) fn take(&mut self, now: Instant, news: News) {
        match news {
            News::Answers(answers) => {
                self.answers = *answers;
                (self.silent_since, self.trouble) = (None, None);
            }
            News::Silence => {
                self.silent_since.get_or_insert(now);
            }
            News::Trouble(text) => self.trouble = Some(text),
        }
    }
}

/// Asks the device again and again.
#[derive(Debug)]
pub(crate) struct Poller {
    news: mpsc::Receiver<News>,
}

impl Poller {
    /// Asks until the value that is returned is dropped.
    pub(crate) fn start(client: Client) -> Self {
        let (sender, news) = mpsc::sync_channel(NEWS_MAX);
        thread::spawn(move || {
            loop {
                thread::sleep(ASK_EVERY);
                let news = match ask(&client) {
                    Ok(answers) => News::Answers(Box::new(answers)),
                    Err(error) if error.is_passing() => News::Silence,
                    Err(error) => News::Trouble(error.to_string()),
                };
                if sender.send(news).is_err() {
                    // Nobody watches any more.
                    return;
                }
            }
        });
        Self { news }
    }

    /// What came in since the last call.
    pub(crate) fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

fn ask(client: &Client) -> Result<Answers, ClientError> {
    Ok(Answers {
        version: client.get("/api/version")?,
        rollout: follow::current(client)?,
        logs: client.get::<Logs>("/api/logs")?.logs,
    })
}

/// Between two rounds.
const ASK_EVERY: Duration = Duration::from_millis(400);
/// Rounds that may wait for the screen.
const NEWS_MAX: usize = 4;

//! An update of the old kind: an image is posted, the device restarts, and what comes back counts.
//!
//! Old firmware answers in words that differ from build to build, restarts before the answer has
//! left, or not at all. So an answer can only refuse; success is the new firmware answering, with
//! the hash of the very image that was sent.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use md5::Digest as _;
use serde_json::Value;

use super::offer::New;
use super::survey::{Found, Part, Way, expect, look, look_patiently};
use crate::client::{Client, ClientError, Watch};
use crate::error::CommandError;
use crate::ui::{Ui, tame};

/// Updates one device, and waits until it runs the image.
pub(super) fn update(
    ui: &Ui,
    address: &str,
    part: Part,
    way: Way,
    new: &New,
    limit: Duration,
) -> Result<(), CommandError> {
    let client = Client::new(address, None)?;
    for attempt in 1..=ATTEMPTS_MAX {
        // It is asked once more: addresses change hands, and another run may have been quicker.
        let found = look_patiently(address);
        if let (Found::Nobody(why), 2..) = (&found, attempt) {
            return Err(CommandError::failed(format!(
                "The {part} at `{address}` does not answer since its upload was cut"
            ))
            .hinted(format!(
                "{why}. A part of the image was sent, and none of it counts: it starts its old \
                     firmware. Switch it off and on, then run the same command again."
            )));
        }
        expect(part, address, &found)?;
        if runs(&found, new) {
            return Ok(());
        }
        if let Found::Ours(_) = found {
            return Err(CommandError::failed(format!(
                "The {part} at `{address}` has become a device of Lockstep meanwhile"
            ))
            .hinted("Nothing was written to it. Run the same command again."));
        }
        let why = match send(ui, &client, part, way, new)? {
            Sent::Taken => return wait(ui, address, part, new, limit).and_then(Back::or_error),
            Sent::Silent => match wait(ui, address, part, new, limit)? {
                Back::New => return Ok(()),
                Back::Old(_) => "it said nothing, and runs its old firmware again".to_owned(),
            },
            Sent::Cut(why) => {
                come_back(address, limit);
                why
            }
        };
        if attempt < ATTEMPTS_MAX {
            ui.note(format_args!("The upload was cut ({why}); once more, from its beginning"));
        } else {
            return Err(CommandError::failed(format!(
                "The upload to the {part} was cut {ATTEMPTS_MAX} times: {why}"
            ))
            .hinted("It goes on with its old firmware. Is the network bad?"));
        }
    }
    Ok(())
}

/// How far an upload came.
enum Sent {
    /// To its end, and the device said yes.
    Taken,
    /// As far as can be seen to its end, and the device said nothing.
    Silent,
    /// Not to its end.
    Cut(String),
}

/// Which firmware came back.
enum Back {
    /// The one that was sent.
    New,
    /// The old one; and what to say of it, if that is no surprise.
    Old(CommandError),
}

impl Back {
    fn or_error(self) -> Result<(), CommandError> {
        match self {
            Self::New => Ok(()),
            Self::Old(error) => Err(error),
        }
    }
}

fn send(ui: &Ui, client: &Client, part: Part, way: Way, new: &New) -> Result<Sent, CommandError> {
    let path = match way {
        Way::OneStep => "/ota_upload",
        Way::TwoSteps => UPLOAD_ONLY,
        // Nobody plans such a step.
        Way::Nothing => return Ok(Sent::Silent),
    };
    let sent = post(ui, client, part, path, &new.bytes)?;
    if let (Sent::Taken, Way::TwoSteps) = (&sent, way) {
        return post(ui, client, part, "/api/ota/install", &[]);
    }
    Ok(sent)
}

/// Posts bytes in a thread of its own, while this one shows how many have left.
fn post(
    ui: &Ui,
    client: &Client,
    part: Part,
    path: &'static str,
    bytes: &[u8],
) -> Result<Sent, CommandError> {
    let watch = Arc::new(Watch::default());
    let (sender, outcome) = mpsc::channel();
    let (poster, sees, body) = (client.clone(), Arc::clone(&watch), bytes.to_vec());
    thread::spawn(move || {
        // Nobody listens any more if this was given up.
        let _ = sender.send(poster.post_image(path, &body, &sees));
    });
    let bar = ui.bytes_bar(format!("Sending to the {part}"), bytes.len() as u64);
    let mut all_sent_at = None;
    let answer = loop {
        match outcome.recv_timeout(SHOW_EVERY) {
            Ok(answer) => break answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bar.set_position(watch.sent_bytes());
                if watch.sent_bytes() < bytes.len() as u64 || path == UPLOAD_ONLY {
                    continue;
                }
                // It may have restarted without closing the connection. What it runs tells.
                let since: &mut Instant = all_sent_at.get_or_insert_with(Instant::now);
                if since.elapsed() >= ANSWER_MAX {
                    bar.finish_and_clear();
                    return Ok(Sent::Silent);
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(CommandError::failed("The upload ended without a word"));
            }
        }
    };
    bar.finish_and_clear();
    match answer {
        Ok((status, text)) => judge(client.device(), part, status, &text, bytes),
        // The head of the request counts, too: with the body all of it has left.
        Err(ClientError::Cut { .. }) if watch.sent_bytes() >= bytes.len() as u64 => {
            Ok(Sent::Silent)
        }
        Err(error) if error.is_passing() => Ok(Sent::Cut(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// What an answer says, as far as it can be read: no, or another image than the one sent.
fn judge(
    address: &str,
    part: Part,
    status: u16,
    text: &str,
    bytes: &[u8],
) -> Result<Sent, CommandError> {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let failed = answer.get("success").is_some_and(|it| *it == false);
    if !(200..300).contains(&status) || failed {
        let line = text.lines().next().unwrap_or_default();
        let line: String = line.chars().take(LINE_CHARS_MAX).collect();
        return Err(CommandError::failed(format!(
            "The {part} at `{address}` refuses the image with {status}: {}",
            tame(&line)
        ))
        .hinted("It goes on with its old firmware."));
    }
    let differs = |what: &str, found: String, expected: String| {
        CommandError::failed(format!(
            "The {part} at `{address}` took {what} {found}, sent was {expected}"
        ))
        .hinted(
            "It may restart with a broken image, and stays with the old one then. Run the \
                 same command again to see what it runs.",
        )
    };
    if bytes.is_empty() {
        return Ok(Sent::Taken);
    }
    if let Some(found) = answer.get("size").and_then(Value::as_u64)
        && found != bytes.len() as u64
    {
        return Err(differs("a size of", found.to_string(), bytes.len().to_string()));
    }
    let found = ["md5", "md5_checksum"].iter().find_map(|name| answer.get(name)?.as_str());
    let expected: String =
        md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    match found.filter(|found| !found.eq_ignore_ascii_case(&expected)) {
        Some(found) => Err(differs("an MD5 of", tame(found), expected)),
        None => Ok(Sent::Taken),
    }
}

fn runs(found: &Found, new: &New) -> bool {
    match found {
        Found::Ours(version) => version.image == new.image.to_string() && !version.on_trial,
        Found::Nobody(_) | Found::Stranger | Found::Old(_) => false,
    }
}

/// Waits until the device runs the image for good, or its old firmware once more.
fn wait(
    ui: &Ui,
    address: &str,
    part: Part,
    new: &New,
    limit: Duration,
) -> Result<Back, CommandError> {
    let spinner = ui.spinner(format!("Waiting for the {part} to come back with {}", new.version));
    let end = Instant::now() + limit;
    // Whether it has been away, or has run the image already.
    let mut left = false;
    let found = loop {
        let found = look(address);
        match &found {
            found if runs(found, new) => break None,
            Found::Nobody(_) => left = true,
            Found::Ours(version) if version.image == new.image.to_string() => left = true,
            Found::Old(_) if left => break Some(found),
            Found::Ours(_) | Found::Old(_) | Found::Stranger => (),
        }
        if Instant::now() >= end {
            break Some(found);
        }
        thread::sleep(LOOK_EVERY);
    };
    spinner.finish_and_clear();
    match found {
        None => Ok(Back::New),
        Some(found @ Found::Old(_)) => Ok(Back::Old(not_there(&found, address, part, new, limit))),
        Some(found) => Err(not_there(&found, address, part, new, limit)),
    }
}

/// What is there in place of the new firmware.
fn not_there(found: &Found, address: &str, part: Part, new: &New, limit: Duration) -> CommandError {
    match found {
        Found::Nobody(_) => CommandError::failed(format!(
            "The {part} took the image, and has not answered at `{address}` for {} s",
            limit.as_secs()
        ))
        .hinted(
            "Has its address changed? If it does not come back, flash it by cable. The other \
             device was not touched by this.",
        ),
        Found::Old(_) => CommandError::failed(format!(
            "The {part} at `{address}` runs its old firmware: the new one did not stay"
        ))
        .hinted(
            "Is the image for its chip, and does it reach the network? What it says on its \
             console tells why it went back.",
        ),
        Found::Ours(version) if version.image == new.image.to_string() => CommandError::failed(
            format!(
                "The {part} at `{address}` runs {} on trial, and does not get healthy",
                new.version
            ),
        )
        .hinted(
            "`/api/health` on it says why. Unless that changes it goes back by itself within ten \
                 minutes.",
        ),
        found => CommandError::failed(format!(
            "The {part} at `{address}` does not run {}, but {}",
            new.version,
            found.runs()
        ))
        .hinted("Nothing more was written. What it says on its console tells more."),
    }
}

/// After a cut: as soon as it answers again, or not at all.
fn come_back(address: &str, limit: Duration) {
    let end = Instant::now() + limit;
    while matches!(look(address), Found::Nobody(_)) && Instant::now() < end {
        thread::sleep(LOOK_EVERY);
    }
}

/// Stores the image and does not restart: there is nothing to be seen of it but its answer.
const UPLOAD_ONLY: &str = "/api/ota/upload";
/// How long a device that has it all may take to answer, before it is asked what it runs.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How often an upload is begun.
const ATTEMPTS_MAX: u32 = 3;
const LOOK_EVERY: Duration = Duration::from_millis(300);
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// So much of an answer in a language that nobody knows is shown.
const LINE_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_can_refuse_or_name_another_image_and_else_says_nothing() {
        let bytes = b"image";
        let said = |status, text: &str| match judge("a", Part::Transmitter, status, text, bytes) {
            Ok(_) => String::new(),
            Err(error) => error.message().to_owned(),
        };
        let md5 = "78805a221a988e79ef3f42d7c5bfd418";
        for good in ["OK", "", "{\"success\":true,\"size\":5}", &format!("{{\"md5\":\"{md5}\"}}")] {
            assert_eq!(said(200, good), "", "{good}");
        }
        assert!(said(500, "Update begin failed").contains("with 500: Update begin failed"));
        assert!(said(200, "{\"success\":false}").contains("refuses the image"));
        assert!(said(200, "{\"size\":4}").contains("a size of 4, sent was 5"));
        assert!(said(200, "{\"md5_checksum\":\"00\"}").contains("an MD5 of 00"));
    }
}

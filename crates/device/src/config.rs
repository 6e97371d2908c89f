//! The application's configuration: one JSON object that it owns, kept by the agent for each image
//! (see `lockstep_agent::config`).
//!
//! Secrets are the fields that the application names, at any depth. They are left out of a backup
//! unless it is asked for with them; where a configuration that is put back lacks one, the present
//! one stays.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::{Agent, CONFIG_BYTES_MAX, ConfigError};
use lockstep_proto::time::Instant;
use serde_json::{Map, Value};

use crate::journal::Level;
use crate::node::Node;
use crate::setup::Application;

/// Why a configuration was not taken. The one before it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFault {
    /// It is not one JSON object.
    NotAnObject(String),
    /// The application does not take it, and says why.
    Refused(String),
    /// It could not be stored.
    Storage(ConfigError),
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject(why) => write!(f, "configuration is not one JSON object: {why}"),
            Self::Refused(why) => write!(f, "application refuses the configuration: {why}"),
            Self::Storage(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for ConfigFault {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Storage(error) => Some(error),
            Self::NotAnObject(_) | Self::Refused(_) => None,
        }
    }
}

/// Tells an application its configuration before it starts. Returns what it says against it.
pub(crate) fn begin<A: Application, F: NorFlash>(
    agent: &Agent,
    application: &mut A,
    flash: &mut F,
) -> Option<String> {
    let object = stored(agent, flash)?;
    application.take_config(&Value::Object(object).to_string()).err()
}

/// What is in flash for the running image.
fn stored<F: NorFlash>(agent: &Agent, flash: &mut F) -> Option<Map<String, Value>> {
    let mut buffer = Box::new([0; CONFIG_BYTES_MAX]);
    let length = agent.load_config(flash, &mut buffer).ok()??;
    serde_json::from_slice(buffer.get(..length)?).ok()
}

impl<A: Application> Node<A> {
    /// The configuration in force, with its secrets or without; empty if there is none.
    pub fn config<F: NorFlash>(&self, with_secrets: bool, flash: &mut F) -> Map<String, Value> {
        let mut object = stored(&self.agent, flash).unwrap_or_default();
        if !with_secrets {
            leave_out(&mut object, self.application.secrets());
        }
        object
    }

    /// Puts another configuration in force, durably.
    pub fn set_config<F: NorFlash>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        flash: &mut F,
    ) -> Result<(), ConfigFault> {
        let mut object: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| ConfigFault::NotAnObject(error.to_string()))?;
        let present = stored(&self.agent, flash);
        if let Some(present) = &present {
            keep_secrets(&mut object, present, self.application.secrets());
        }
        let text = Value::Object(object).to_string();
        if text.len() > CONFIG_BYTES_MAX {
            let found_bytes = text.len();
            return Err(ConfigFault::Storage(ConfigError::TooLarge { found_bytes }));
        }
        self.application.take_config(&text).map_err(ConfigFault::Refused)?;
        if let Err(error) = self.agent.store_config(text.as_bytes(), flash) {
            let before = Value::Object(present.unwrap_or_default()).to_string();
            if let Err(why) = self.application.take_config(&before) {
                let text = format!("the application refuses its own configuration: {why}");
                self.journal.log(now, Level::Error, text);
            }
            return Err(ConfigFault::Storage(error));
        }
        let text = String::from("another configuration is in force");
        self.journal.log(now, Level::Notice, text);
        Ok(())
    }
}

fn leave_out(object: &mut Map<String, Value>, secrets: &[&str]) {
    object.retain(|name, _| !secrets.contains(&name.as_str()));
    for value in object.values_mut() {
        if let Value::Object(inner) = value {
            leave_out(inner, secrets);
        }
    }
}

fn keep_secrets(object: &mut Map<String, Value>, present: &Map<String, Value>, secrets: &[&str]) {
    for (name, value) in present {
        match (object.get_mut(name), value) {
            (None, _) if secrets.contains(&name.as_str()) => {
                object.insert(name.clone(), value.clone());
            }
            (Some(Value::Object(inner)), Value::Object(present)) => {
                keep_secrets(inner, present, secrets);
            }
            (Some(_) | None, _) => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: &[&str] = &["password", "token"];

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn secrets_are_left_out_at_any_depth_and_come_back_where_they_lack() {
        let full = r#"{"name":"desk","password":"a","mqtt":{"host":"b","token":"c"}}"#;
        let mut shown = object(full);
        leave_out(&mut shown, SECRETS);
        assert_eq!(
            Value::Object(shown.clone()).to_string(),
            r#"{"mqtt":{"host":"b"},"name":"desk"}"#
        );
        keep_secrets(&mut shown, &object(full), SECRETS);
        assert_eq!(shown, object(full));
    }

    #[test]
    fn a_secret_that_is_given_takes_the_place_of_the_present_one_and_nothing_else_is_kept() {
        let present = object(r#"{"password":"a","name":"desk","mqtt":{"token":"c"}}"#);
        let mut given = object(r#"{"password":"new"}"#);
        keep_secrets(&mut given, &present, SECRETS);
        assert_eq!(given, object(r#"{"password":"new"}"#));
    }
}

//! `lockstep serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use lockstep_device::mqtt::{BadPrefix, PREFIX_DEFAULT, Prefix};
use lockstep_proto::manifest::Trust;
use lockstep_server::mqtt::{Broker, Login};
use lockstep_server::run::{self, ServeError, ServeOptions};
use lockstep_server::store::StoreError;
use serde_json::json;

use crate::broker::BrokerUrl;
use crate::error::CommandError;
use crate::keys;
use crate::ui::Ui;

/// Look after many groups: releases, campaigns, and a console in the browser
///
/// Everything that is durable is in the folder --data, which is made if it is missing: a database
/// and the bundles. The first start prints a link at which the first admin is made. Leads come by
/// themselves once they are enrolled; they begin rollouts, and end them, on their own.
///
/// A server on a desk:
///   lockstep serve --data fleet
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ServeArgs {
    /// The folder of everything that is durable
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Where to listen; port 0 is any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// How people and leads find it, if that is not where it listens: https://fleet.example.org
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,

    /// A database elsewhere: postgres://USER:PASSWORD@HOST/NAME [default: SQLite in --data]
    #[arg(long, value_name = "URL", env = "LOCKSTEP_DATABASE", hide_env_values = true)]
    database: Option<String>,

    /// Bundles elsewhere: s3://BUCKET, with credentials and endpoint from the environment as AWS's
    /// own tools take them [default: a folder in --data]
    #[arg(long, value_name = "URL")]
    objects: Option<String>,

    /// Take releases in that are signed with this key alone; may be given several times
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,

    /// So many of these keys must have signed
    #[arg(long, value_name = "NUMBER", requires = "keys")]
    threshold: Option<u8>,

    /// How often a lead comes when nothing happens, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
        value_parser = clap::value_parser!(u32).range(5..=86_400))]
    poll: u32,

    /// Tell this MQTT broker how the fleet is, and take orders from there:
    /// mqtt://[USER:PASSWORD@]HOST[:PORT]; others on this machine can see it, so with a password
    /// better use the environment variable LOCKSTEP_MQTT
    #[arg(long, value_name = "URL", env = "LOCKSTEP_MQTT", hide_env_values = true)]
    mqtt: Option<BrokerUrl>,

    /// Where the topics begin; the group's identity comes behind it
    #[arg(long, value_name = "TOPIC", default_value = PREFIX_DEFAULT, value_parser = prefix)]
    mqtt_topic: String,

    /// Print the log as one JSON object for each line
    #[arg(long)]
    json_log: bool,
}

pub(super) fn serve(ui: &Ui, args: &ServeArgs) -> Result<(), CommandError> {
    let trust = match args.keys.as_slice() {
        [] => Trust::anybody(),
        paths => Trust::signed_by(keys::read_key_set(paths, args.threshold)?),
    };
    let options = ServeOptions {
        data: args.data.clone(),
        listen: args.listen,
        public_url: args.public_url.clone(),
        database: args.database.clone(),
        objects: args.objects.clone(),
        trust,
        poll_s: args.poll,
        mqtt: args.mqtt.as_ref().map(|url| broker(url, &args.mqtt_topic)).transpose()?,
    };
    begin_log(args.json_log || ui.is_json());
    let failed = |error: &dyn std::error::Error| {
        CommandError::failed("The server cannot run").because(error)
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| failed(&error))?;
    runtime.block_on(async {
        let ready = run::open(&options).await.map_err(|error| serve_error(&error, args))?;
        let url = ready.server.public_url.clone();
        ui.line(format_args!("Lockstep server at {url}/, listening at {}", ready.address))?;
        let setup = ready.setup_link();
        if let Some(link) = &setup {
            ui.line(format_args!("First start: make the first admin at {link}"))?;
        }
        ui.json(&json!({ "url": url, "listens": ready.address.to_string(), "setup": setup }))?;
        ready.serve(interrupted()).await.map_err(|error| serve_error(&error, args))
    })
}

/// What a device takes as the beginning of its topics.
fn prefix(text: &str) -> Result<String, BadPrefix> {
    Prefix::new(text).map(|_| text.to_owned())
}

fn broker(url: &BrokerUrl, prefix: &str) -> Result<Broker, CommandError> {
    let bad = |error: BadPrefix| CommandError::usage("--mqtt-topic is none").because(&error);
    let of_device = url.broker(&Prefix::new(prefix).map_err(bad)?)?;
    let login = of_device.login.map(|login| Login { user: login.user, password: login.password });
    let (host, port, prefix) = (of_device.host, of_device.port, prefix.to_owned());
    Ok(Broker { host, port, login, prefix })
}

/// Ctrl-C, or what a service manager sends.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = tokio::signal::ctrl_c() => (),
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

fn begin_log(is_json: bool) {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    // A second one in the same process changes nothing.
    let _ = match is_json {
        true => log.json().flatten_event(true).try_init(),
        false => log.try_init(),
    };
}

fn serve_error(error: &ServeError, args: &ServeArgs) -> CommandError {
    let failed = CommandError::failed("The server cannot run").because(error);
    match error {
        ServeError::Listen { .. } => failed.hinted(format!(
            "Another program listens at {}, perhaps. Any free port: --listen 127.0.0.1:0",
            args.listen
        )),
        ServeError::Folder { .. } => {
            failed.hinted("Name a folder that you may write to: --data DIR")
        }
        ServeError::Store(StoreError::TooNew { .. }) => {
            failed.hinted("Use the version of lockstep that has written it, or a newer one.")
        }
        ServeError::Store(StoreError::Url { .. }) => {
            failed.hinted("Such as --database postgres://lockstep@localhost/lockstep")
        }
        ServeError::Store(_) => failed.hinted("Is it there, and may this user write to it?"),
        ServeError::Objects(_) => {
            failed.hinted("Such as --objects s3://lockstep, with AWS_ENDPOINT_URL and credentials")
        }
        ServeError::Host(_) => failed,
    }
}

//! `lockstep serve`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use lockstep_device::mqtt::{BadPrefix, PREFIX_DEFAULT, Prefix};
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::Trust;
use lockstep_proto::partition::PartitionTable;
use lockstep_server::mqtt::{Broker, Login};
use lockstep_server::objects::ObjectError;
use lockstep_server::run::{self, ServeError, ServeOptions};
use lockstep_server::store::StoreError;
use lockstep_server::tls::authority::Authority;
use lockstep_server::tls::{Certificates, TlsError, TlsOptions};
use serde_json::json;

use crate::args;
use crate::broker::BrokerUrl;
use crate::error::CommandError;
use crate::flashing::bootloader;
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
///
/// For a network, with TLS for people; devices go on in plain, for what they trust is a release's
/// signature. Without certificates the server makes an authority of its own, which you trust once:
///   lockstep serve --data fleet --listen 0.0.0.0:8080 --tls-listen 0.0.0.0:8443
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ServeArgs {
    /// The folder of everything that is durable
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Where to listen; port 0 is any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    #[command(flatten)]
    tls: TlsArgs,

    /// How people find it, if that is not where it listens: https://fleet.example.org
    #[arg(long, value_name = "URL", value_parser = url)]
    public_url: Option<String>,

    /// How leads and old firmware find it, who speak plain HTTP: http://fleet.example.org
    /// [default: --public-url, if that is plain, else where it listens]
    #[arg(long, value_name = "URL", value_parser = plain_url)]
    lead_url: Option<String>,

    /// Believe this proxy when it says for whom it asks, in X-Forwarded-For; may be given several
    /// times
    #[arg(long = "proxy", value_name = "ADDRESS")]
    proxies: Vec<IpAddr>,

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

    /// The bootloader of boards that are flashed from a browser; again for other chips [default:
    /// espflash's own, which have no rollback]
    #[arg(long = "bootloader", value_name = "CHIP=FILE", value_parser = chip_file)]
    bootloaders: Vec<(ChipId, PathBuf)>,

    /// Print the log as one JSON object for each line
    #[arg(long)]
    json_log: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
struct TlsArgs {
    /// Where to listen for TLS. What is asked for at --listen is then answered only to devices
    #[arg(long, value_name = "ADDRESS:PORT")]
    tls_listen: Option<SocketAddr>,

    /// The certificate in PEM form, and behind it those that lead to its authority; read again
    /// when it changes [default: one by an authority of the server's own, in the folder tls]
    #[arg(long, value_name = "FILE", requires_all = ["tls_listen", "tls_key"])]
    tls_cert: Option<PathBuf>,

    /// Its private key
    #[arg(long, value_name = "FILE", requires_all = ["tls_listen", "tls_cert"])]
    tls_key: Option<PathBuf>,

    /// A name or an address of this server, for a certificate by its own authority; may be given
    /// several times. The first stands in links [default: what the host calls itself]
    #[arg(
        long = "tls-name",
        value_name = "NAME",
        requires = "tls_listen",
        conflicts_with = "tls_cert"
    )]
    tls_names: Vec<String>,
}

impl TlsArgs {
    fn options(&self) -> Option<TlsOptions> {
        let listen = self.tls_listen?;
        let certificates = match (&self.tls_cert, &self.tls_key) {
            (Some(chain), Some(key)) => {
                Certificates::Given { chain: chain.clone(), key: key.clone() }
            }
            _ => Certificates::Own { names: self.tls_names.clone() },
        };
        Some(TlsOptions { listen, certificates })
    }
}

pub(super) fn serve(ui: &Ui, args: &ServeArgs) -> Result<(), CommandError> {
    let trust = match args.keys.as_slice() {
        [] => Trust::anybody(),
        paths => Trust::signed_by(keys::read_key_set(paths, args.threshold)?),
    };
    let options = ServeOptions {
        data: args.data.clone(),
        listen: args.listen,
        tls: args.tls.options(),
        public_url: args.public_url.clone(),
        lead_url: args.lead_url.clone(),
        proxies: args.proxies.clone(),
        database: args.database.clone(),
        objects: args.objects.clone(),
        trust,
        poll_s: args.poll,
        mqtt: args.mqtt.as_ref().map(|url| broker(url, &args.mqtt_topic)).transpose()?,
        bootloaders: bootloaders(&args.bootloaders)?,
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
        let tls = ready.server.tls.as_ref();
        let authority = tls.and_then(|tls| tls.authority());
        if let Some(at) = ready.tls_address {
            ui.line(format_args!("TLS at {at}; devices find it at {}", ready.server.lead_url))?;
        }
        if let Some(authority) = authority {
            let path = authority.path().display();
            ui.line(format_args!("Its own authority, to be trusted once: {path}"))?;
            ui.line(format_args!("  SHA-256 {}", authority.fingerprint()))?;
        }
        let setup = ready.setup_link();
        if let Some(link) = &setup {
            ui.line(format_args!("First start: make the first admin at {link}"))?;
        }
        ui.json(&json!({
            "url": url,
            "lead_url": ready.server.lead_url,
            "listens": ready.address.to_string(),
            "listens_tls": ready.tls_address.map(|at| at.to_string()),
            "ca_sha256": authority.map(Authority::fingerprint),
            "setup": setup,
        }))?;
        ready.serve(interrupted()).await.map_err(|error| serve_error(&error, args))
    })
}

/// Those that were given, and espflash's own for all other chips.
fn bootloaders(given: &[(ChipId, PathBuf)]) -> Result<BTreeMap<ChipId, Vec<u8>>, CommandError> {
    let flash_bytes = PartitionTable::desk_table().end();
    let ours = ChipId::all().filter_map(|chip| {
        let bootloader = bootloader::bundled(chip, None, 0, flash_bytes).ok()?;
        Some((chip, bootloader.bytes))
    });
    let mut all: BTreeMap<ChipId, Vec<u8>> = ours.collect();
    for (chip, path) in given {
        all.insert(*chip, bootloader::read(path, *chip, flash_bytes)?.bytes);
    }
    Ok(all)
}

fn chip_file(text: &str) -> Result<(ChipId, PathBuf), String> {
    let (chip, file) =
        text.split_once('=').ok_or("expected CHIP=FILE, such as esp32c3=boot.bin")?;
    Ok((args::chip(chip)?, file.into()))
}

fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(host) if !host.is_empty() && !host.starts_with('/') => Ok(text.to_owned()),
        _ => Err("expected https://HOST[:PORT], or http".into()),
    }
}

fn plain_url(text: &str) -> Result<String, String> {
    match text.starts_with("http://") {
        true => url(text),
        false => Err("expected http://HOST[:PORT]: devices speak no TLS".into()),
    }
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
            "Another program listens there, perhaps. Any free port: {}",
            match args.tls.tls_listen {
                Some(_) => "--listen 127.0.0.1:0 --tls-listen 127.0.0.1:0",
                None => "--listen 127.0.0.1:0",
            }
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
        ServeError::Objects(ObjectError::Lost) => failed.hinted(
            "Is its disk mounted? Bundles that are lost come back from a backup: lockstep restore",
        ),
        ServeError::Objects(_) => {
            failed.hinted("Such as --objects s3://lockstep, with AWS_ENDPOINT_URL and credentials")
        }
        ServeError::Tls(TlsError::Name { .. }) => {
            failed.hinted("Such as --tls-name fleet.local --tls-name 192.168.1.5")
        }
        ServeError::Tls(TlsError::Expired { .. }) => failed.hinted(
            "Get another one. If it is the server's own authority: remove that file, and trust \
             the new authority that the next start makes.",
        ),
        ServeError::Tls(TlsError::Content { .. } | TlsError::Pair { .. }) => failed.hinted(
            "Give the certificate and the key that it was made for: --tls-cert FILE --tls-key FILE",
        ),
        ServeError::Tls(_) => failed.hinted("May this user read and write there?"),
        ServeError::Host(_) => failed,
    }
}

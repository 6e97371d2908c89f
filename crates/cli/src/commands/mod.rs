//! The commands: each file holds one, its arguments (whose comments are its help) and its function.

mod abort;
mod adopt;
mod audit;
mod backup;
mod bench;
mod campaign;
mod completions;
mod config;
mod demo;
pub(crate) mod device;
mod flash;
mod group;
mod history;
mod image;
mod inspect;
mod keygen;
mod login;
mod logs;
mod password;
mod person;
pub(crate) mod publish;
pub(crate) mod release;
mod report;
mod revert;
mod schedule;
mod serve;
mod sim;
mod status;
mod token;
pub(crate) mod update;
mod watch;

use clap::{Parser, Subcommand};

use crate::error::CommandError;
use crate::ui::Ui;

/// Update devices that must agree: all of a group move to a release together, or none does
///
/// A release is described by a signed manifest and travels as one file, a bundle. The lead of a
/// group takes the bundle, brings it to every member, and lets all of them switch together. If one
/// of them does not get healthy, all go back.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Print results as JSON, and errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
A release from two images, and its way onto a group:
  lockstep keygen --out team
  lockstep release create --system battery-link --version 1.2.0 --key team.key \\
      --receiver receiver.bin --transmitter transmitter.bin -o battery-link-1.2.0.lockstep
  lockstep update battery-link-1.2.0.lockstep --device 192.168.1.20

Exit codes: 0 done, 1 failed or refused, 2 wrong command line, 255 a bug.";

/// What to do; each command's help is the comment of its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    // What a maker does, in the order in which it is done.
    Keygen(keygen::KeygenArgs),
    Inspect(inspect::InspectArgs),
    #[command(subcommand)]
    Release(release::ReleaseCommand),
    #[command(subcommand)]
    Image(image::ImageCommand),
    Flash(Box<flash::FlashArgs>),
    Device(Box<device::DeviceArgs>),
    Demo(demo::DemoArgs),
    Adopt(Box<adopt::AdoptArgs>),
    // What happens to a group.
    Status(status::StatusArgs),
    Watch(watch::WatchArgs),
    Update(update::UpdateArgs),
    Schedule(schedule::ScheduleArgs),
    Abort(abort::AbortArgs),
    Revert(revert::RevertArgs),
    #[command(subcommand)]
    Group(group::GroupCommand),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Password(password::PasswordArgs),
    History(history::HistoryArgs),
    Logs(logs::LogsArgs),
    Report(report::ReportArgs),
    // What looks after many groups.
    Serve(serve::ServeArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    Publish(publish::PublishArgs),
    #[command(subcommand)]
    Campaign(campaign::CampaignCommand),
    #[command(subcommand)]
    Person(person::PersonCommand),
    #[command(subcommand)]
    Token(token::TokenCommand),
    Audit(audit::AuditArgs),
    // Whether it can be relied upon.
    Sim(sim::SimArgs),
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    Completions(completions::CompletionsArgs),
}

/// Runs one command.
pub(crate) fn run(ui: &Ui, command: Command) -> Result<(), CommandError> {
    match command {
        Command::Keygen(args) => keygen::keygen(ui, &args),
        Command::Inspect(args) => inspect::inspect(ui, &args),
        Command::Release(command) => release::release(ui, &command),
        Command::Image(command) => image::image(ui, command),
        Command::Flash(args) => flash::flash(ui, &args),
        Command::Device(args) => device::device(ui, &args),
        Command::Demo(args) => demo::demo(ui, &args),
        Command::Adopt(args) => adopt::adopt(ui, &args),
        Command::Status(args) => status::status(ui, &args),
        Command::Watch(args) => watch::watch(ui, &args),
        Command::Update(args) => update::update(ui, &args),
        Command::Schedule(args) => schedule::schedule(ui, &args),
        Command::Abort(args) => abort::abort(ui, &args),
        Command::Revert(args) => revert::revert(ui, &args),
        Command::Group(command) => group::group(ui, command),
        Command::Config(command) => config::config(ui, &command),
        Command::Password(args) => password::password(ui, &args),
        Command::History(args) => history::history(ui, &args),
        Command::Report(args) => report::report(ui, &args),
        Command::Logs(args) => logs::logs(ui, &args),
        Command::Serve(args) => serve::serve(ui, &args),
        Command::Backup(args) => backup::backup(ui, &args),
        Command::Restore(args) => backup::restore(ui, &args),
        Command::Login(args) => login::login(ui, &args),
        Command::Logout(args) => login::logout(ui, &args),
        Command::Publish(args) => publish::publish(ui, &args),
        Command::Campaign(command) => campaign::campaign(ui, &command),
        Command::Person(command) => person::person(ui, &command),
        Command::Token(command) => token::token(ui, &command),
        Command::Audit(args) => audit::audit(ui, &args),
        Command::Sim(args) => sim::sim(ui, &args),
        Command::Bench(command) => bench::bench(ui, &command),
        Command::Completions(args) => completions::completions(ui, &args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    /// Options that two sets of arguments share are found only when their command is used.
    #[test]
    fn no_command_has_two_options_of_one_name() {
        super::Cli::command().debug_assert();
    }
}

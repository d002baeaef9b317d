//! The binary's commands.

mod backup;
mod edge;
mod erase;
mod events;
mod key;
mod out;
mod quarantine;
mod reconcile;
mod region_key;
mod running;
mod schema;
mod serve;
mod sinks;
mod status;
mod tenant;
mod verify;

use std::{
    io::{ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, FromArgMatches, Parser, Subcommand};

use self::out::Out;
use crate::{Error, Settings, settings::Layer, tenants::Store};

/// Carries events from a page to a table, each exactly once.
#[derive(Debug, Parser)]
#[command(name = "firsthop", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take events, keep them, and bring them to the events table.
    Serve(serve::Serve),
    /// Show events: the newest, or those that match.
    Events(events::Events),
    /// Who may write.
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Edges that may vouch for a tenant's pages.
    #[command(subcommand)]
    Edge(edge::Command),
    /// Root keys: what every session and lease is derived from.
    #[command(subcommand)]
    Key(key::Command),
    /// Region keys: what frames are sealed to, so that nobody outside their region can read them.
    #[command(subcommand)]
    RegionKey(region_key::Command),
    /// Where a tenant's events go, and what was refused there.
    #[command(subcommand)]
    Sinks(sinks::Command),
    /// Deliver again: what came since a time or with a frame and after it, or what was refused.
    Replay(sinks::Replay),
    /// Check everything that is stored: checksums, signatures, counts. Ends with 1 if anything is wrong.
    ///
    /// Reads only, and a server may run on the folder meanwhile. `--ledger` checks the signed hours alone: for that, a journal file and the
    /// public key are enough.
    Verify(verify::Verify),
    /// What was set aside: look at it, send it through the checks again, or throw it away.
    #[command(subcommand)]
    Quarantine(quarantine::Command),
    /// Draw up the balance: what became of every event that was issued. Ends with 3 if some are unaccounted for.
    ///
    /// Reads only, and a server may run on the folder meanwhile. What is missing is in flight until the grace is over, and then
    /// unaccounted for; numbers that anybody could have made up are listed apart, and raise no alarm. It also ends with 3 if the tables
    /// contradict each other.
    Reconcile(reconcile::Reconcile),
    /// Show the shape of a tenant's events: which properties come with which types, since when and how often.
    Schema(schema::Schema),
    /// Who serves a data folder, and how it is.
    Status(status::Status),
    /// Erase a person's events wherever the server holds them.
    ///
    /// That is in the journal, the events table, quarantine, dead letters, and the databases' logs; with a running server or without. It
    /// says what there is, and asks. Not within its reach: what was delivered elsewhere, and backups from before.
    Erase(erase::Erase),
    /// Copy tenants to a folder, whole and consistent, while a server writes.
    ///
    /// Everything that was acknowledged before it began is in the copy, and so are the tenants' keys: keep it as safe as the data folder.
    Backup(backup::Backup),
    /// Put tenants of a backup into a data folder that does not have them, and check them.
    ///
    /// Nothing is written over: a tenant that is there is an error. A running server notices by itself what has come.
    Restore(backup::Restore),
    /// Print every setting and its value.
    Settings(serve::Given),
}

/// Where the data is: for every command but `serve`, which takes all settings.
#[derive(Debug, Args)]
struct Folder {
    /// Settings file (TOML).
    #[arg(long, env = "FIRSTHOP_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Data folder [default: ./firsthop-data]
    #[arg(long, env = "FIRSTHOP_DATA", hide_env_values = true)]
    data: Option<PathBuf>,
}

impl Folder {
    fn settings(&self) -> Result<Settings, Error> {
        // The server beside which a command runs has these variables, too.
        let mut over = of_environment().map_err(|error| Error::Settings(error.to_string()))?;
        over.data.clone_from(&self.data);
        Settings::resolve(self.config.as_deref(), over)
    }

    fn store(&self) -> Result<Store, Error> {
        Ok(Store::new(self.settings()?.data))
    }
}

/// What the variables say of all settings, for a command that has no options for them.
fn of_environment() -> Result<Layer, clap::Error> {
    let command = Layer::augment_args(clap::Command::new("firsthop").no_binary_name(true));
    Layer::from_arg_matches(&command.try_get_matches_from(std::iter::empty::<&str>())?)
}

/// A folder, and one of its tenants.
#[derive(Debug, Args)]
struct Chosen {
    #[command(flatten)]
    folder: Folder,
    /// Name or id of the tenant; not needed if there is one only.
    #[arg(long, short)]
    tenant: Option<String>,
}

/// What a balance that does not close ends with: for a job that pages somebody, who then knows that it is not a wrong option.
const UNBALANCED: u8 = 3;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    // Prints help or what is wrong, and ends the process itself: 2 for a wrong command line.
    let cli = Cli::parse();
    let mut out = Out::stdout();
    let result = match cli.command {
        Command::Serve(command) => command.run(),
        Command::Events(command) => command.run(&mut out),
        Command::Tenant(command) => command.run(&mut out),
        Command::Edge(command) => command.run(&mut out),
        Command::Key(command) => command.run(&mut out),
        Command::RegionKey(command) => command.run(&mut out),
        Command::Erase(command) => command.run(&mut out),
        Command::Backup(command) => command.run(&mut out),
        Command::Restore(command) => command.run(&mut out),
        Command::Sinks(command) => command.run(&mut out),
        Command::Replay(command) => command.run(&mut out),
        Command::Verify(command) => command.run(&mut out),
        Command::Quarantine(command) => command.run(&mut out),
        Command::Reconcile(command) => command.run(&mut out),
        Command::Schema(command) => command.run(&mut out),
        Command::Status(command) => command.run(&mut out),
        Command::Settings(command) => command.print(&mut out),
    };
    let result = result.and_then(|()| out.flush().map_err(|error| Error::Io("standard output".into(), error)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(Error::Io(_, error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody left to tell, if this fails.
            let _ = writeln!(std::io::stderr(), "firsthop: {error}");
            if matches!(error, Error::Unbalanced(_)) { ExitCode::from(UNBALANCED) } else { ExitCode::FAILURE }
        }
    }
}

//! Servers that tests speak to: a PostgreSQL of their own, and an S3 store. Each listens on
//! loopback, keeps its files in a folder that goes with it, and ends with the value.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::{Machine, Tool};
use crate::shell::{self, Failure};

/// A server that runs as long as this lives.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    folder: PathBuf,
    /// Where tests find it.
    pub(crate) url: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself, and its folder may be gone: then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A PostgreSQL with an empty cluster; as root it runs as Debian's user for it, since it refuses to
/// be root.
pub(crate) fn postgres(machine: &Machine) -> Result<Service, Failure> {
    let folder = folder_of("postgres")?;
    let programs = machine.path_of(Tool::Postgres).and_then(|it| it.parent().map(Path::to_owned));
    let programs = programs.unwrap_or_default();
    let is_root = shell::read(Command::new("id").arg("-u")).is_ok_and(|user| user.trim() == "0");
    if is_root {
        shell::run(Command::new("chown").arg("postgres").arg(&folder))?;
    }
    let run = |program: &str| {
        let program = programs.join(program);
        if !is_root {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    };
    let data = folder.join("data");
    let mut initdb = run("initdb");
    initdb.current_dir("/").args(["--auth=trust", "--username=lockstep", "--no-sync", "-D"]);
    shell::run(initdb.arg(&data).stdout(Stdio::null()))?;
    let port = free_port()?;
    let mut server = run("postgres");
    server.current_dir("/").args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", "", "-D"]);
    let url = format!("postgres://lockstep@127.0.0.1:{port}/postgres");
    start(server.arg(&data), "postgres", folder, url, port)
}

/// An S3 store that forgets everything at its end.
pub(crate) fn object_store(machine: &Machine) -> Result<Service, Failure> {
    let folder = folder_of("moto")?;
    let port = free_port()?;
    let program = machine.path_of(Tool::Moto).unwrap_or_default();
    let mut server = Command::new(program);
    server.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    start(&mut server, "moto_server", folder, format!("http://127.0.0.1:{port}"), port)
}

fn start(
    command: &mut Command,
    program: &str,
    folder: PathBuf,
    url: String,
    port: u16,
) -> Result<Service, Failure> {
    let log = folder.join("log");
    let open = fs::File::create(&log);
    let log = open.map_err(|source| Failure::File { path: log, source })?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child =
        command.spawn().map_err(|source| Failure::Start { program: program.to_owned(), source })?;
    let mut service = Service { child, folder, url };
    let start = Instant::now();
    while start.elapsed() < START_MAX {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(service);
        }
        if let Ok(Some(status)) = service.child.try_wait() {
            return Err(Failure::Ended { program: program.to_owned(), status });
        }
        thread::sleep(LOOK_EVERY);
    }
    let text = format!("nothing at port {port} within {} s", START_MAX.as_secs());
    Err(Failure::Output { program: program.to_owned(), text })
}

fn folder_of(name: &str) -> Result<PathBuf, Failure> {
    let path = std::env::temp_dir().join(format!("lockstep-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).map_err(|source| Failure::File { path: path.clone(), source })?;
    Ok(path)
}

fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0));
    let port = listener.and_then(|listener| listener.local_addr()).map(|address| address.port());
    port.map_err(|source| Failure::Start { program: "a server on loopback".to_owned(), source })
}

/// A server is there by then.
const START_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

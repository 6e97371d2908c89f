//! The end of a demo: Ctrl-C while it plays, and while it stays.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use crate::error::CommandError;

/// Ctrl-C, or a request to end.
///
/// While rollouts run it ends the demo at once, and the temporary folder with it; the devices end
/// when their input does. Afterwards it ends the stay.
pub(crate) struct Interrupt {
    stays: Arc<AtomicBool>,
    came: mpsc::Receiver<Result<(), CommandError>>,
}

impl Interrupt {
    /// From now on; the folder goes with the demo.
    pub(crate) fn watch(folder: Option<PathBuf>) -> Self {
        let (sender, came) = mpsc::channel();
        let stays = Arc::new(AtomicBool::new(false));
        let is_staying = Arc::clone(&stays);
        thread::spawn(move || {
            let ended = wait_for_interrupt();
            if ended.is_ok() && !is_staying.load(Ordering::SeqCst) {
                if let Some(folder) = folder {
                    // Whatever is left of it harms nobody.
                    let _ = std::fs::remove_dir_all(folder);
                }
                std::process::exit(EXIT_INTERRUPTED);
            }
            // Without a receiver the demo is over already.
            let _ = sender.send(ended);
        });
        Self { stays, came }
    }

    /// Until somebody ends it; the devices end with it.
    pub(crate) fn wait(&self) -> Result<(), CommandError> {
        self.stays.store(true, Ordering::SeqCst);
        // Without a sender its thread has panicked: then there is nothing to wait for.
        self.came.recv().unwrap_or(Ok(()))
    }
}

/// What a shell expects of a command that Ctrl-C ended: 128 and the signal's number.
const EXIT_INTERRUPTED: i32 = 130;

fn wait_for_interrupt() -> Result<(), CommandError> {
    let failed =
        |error: &std::io::Error| CommandError::failed("Cannot wait for Ctrl-C").because(error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| failed(&error))?;
    runtime
        .block_on(async {
            #[cfg(unix)]
            {
                use tokio::signal::unix::{SignalKind, signal};
                let mut ended = signal(SignalKind::terminate())?;
                tokio::select! {
                    done = tokio::signal::ctrl_c() => done,
                    _ = ended.recv() => Ok(()),
                }
            }
            #[cfg(not(unix))]
            tokio::signal::ctrl_c().await
        })
        .map_err(|error| failed(&error))
}

/// How this command is called from here.
pub(crate) fn program() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("lockstep"));
    let here = std::env::current_dir().unwrap_or_default();
    program.strip_prefix(here).unwrap_or(&program).display().to_string()
}

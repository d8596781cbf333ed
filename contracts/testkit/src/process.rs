//! Our own binaries as real processes: started, queried, killed and terminated as in production.

use std::{
    fs::File,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{eventually, eventually::within};

const READY_LIMIT: Duration = Duration::from_secs(30);
const EXIT_LIMIT: Duration = Duration::from_secs(40);
const LOG_LINES_SHOWN: usize = 40;
/// Ports for listeners, below the ephemeral range, where no outgoing connection can take them.
const PORTS: std::ops::Range<u32> = 26_000..32_000;

/// A running binary of ours. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `target/debug/<name>` with arguments and, besides `PATH` and `HOME`, only this environment. Its output
    /// goes to a file.
    ///
    /// # Panics
    /// Where it is not built.
    pub fn start<K: AsRef<str>, V: AsRef<str>>(
        name: &str,
        arguments: &[&str],
        env: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::SeqCst);
        let log = std::env::temp_dir().join(format!("registrar-test-{}-{number}-{name}.log", std::process::id()));
        let output = File::create(&log).expect("the temporary folder is writable");
        let mut command = Command::new(binary(name));
        command.args(arguments).env_clear().stdin(Stdio::null());
        for kept in ["PATH", "HOME", "RUST_LOG", "RUST_BACKTRACE"] {
            command.envs(std::env::var(kept).map(|value| (kept, value)));
        }
        for (key, value) in env {
            command.env(key.as_ref(), value.as_ref());
        }
        command.stdout(output.try_clone().expect("a file has more than one handle")).stderr(output);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its output so far.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).expect("the log was created before the process");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the address answers with success, at most 30 s.
    ///
    /// # Panics
    /// Where it does not, or the process ends; with the last lines of its output.
    pub async fn wait_ready(&mut self, url: &str) {
        let http = reqwest::Client::new();
        let answers = within(READY_LIMIT, || {
            let ended = self.has_ended();
            let asked = http.get(url).timeout(Duration::from_secs(2)).send();
            async move { ended || asked.await.is_ok_and(|answer| answer.status().is_success()) }
        });
        let answered = answers.await.is_some();
        assert!(answered && !self.has_ended(), "{} is not ready at {url}; its output:\n{}", self.name, self.tail());
    }

    /// Waits until its output contains a text, at most 30 s.
    ///
    /// # Panics
    /// Where it does not.
    pub async fn wait_for_output(&self, text: &str) {
        let written = within(READY_LIMIT, || async { self.output().contains(text) }).await;
        assert!(written.is_some(), "{} did not write `{text}`; its output:\n{}", self.name, self.tail());
    }

    /// Sends SIGKILL: no destructor runs, no buffer is flushed.
    pub fn kill9(&mut self) {
        self.child.kill().ok();
        self.child.wait().expect("our own child can be waited for");
    }

    /// Sends a signal by name: `TERM`, `STOP`, `CONT`, …
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {name} to {} (pid {})", self.name, self.pid());
    }

    /// Sends SIGTERM and waits for the end, at most 40 s.
    ///
    /// # Panics
    /// Where it does not end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait().await
    }

    /// Waits for the end, at most 40 s.
    ///
    /// # Panics
    /// Where it does not end.
    pub async fn wait(&mut self) -> ExitStatus {
        let awaited = format!("{} (pid {}) ends", self.name, self.pid());
        eventually(&awaited, EXIT_LIMIT, || {
            let ended = self.child.try_wait().expect("our own child can be waited for");
            async move { ended }
        })
        .await
    }

    /// Returns true if the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("the end of {}'s output ({}):\n{}", self.name, self.log.display(), self.tail());
        } else {
            std::fs::remove_file(&self.log).ok();
        }
    }
}

/// A port on loopback without a listener, below the ephemeral range.
///
/// # Panics
/// Where there is none.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let span = PORTS.end - PORTS.start;
    // Processes start at different ports, so that they rarely try the same one at once.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::SeqCst);
        let port = PORTS.start + start.wrapping_add(step) % span;
        let port = u16::try_from(port).expect("the range ends below 65536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free between {} and {}", PORTS.start, PORTS.end);
}

/// The path of a binary: one folder above `target/<profile>/deps`, from where tests run.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path is known");
    let folder = test.ancestors().find(|path| path.ends_with("deps")).and_then(|deps| deps.parent());
    let path = folder.unwrap_or_else(|| panic!("{} is not in a target folder", test.display())).join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

//! A broker of a test's own, to be killed and choked, through the scripts that start every other.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Ended by its drop.
pub struct OwnBroker {
    instance: &'static str,
}

impl OwnBroker {
    /// Starts it, empty. Instances of different names run side by side.
    pub async fn start(instance: &'static str) -> Self {
        let broker = Self { instance };
        broker.end();
        broker.services(&["up", "rabbitmq"]).await;
        broker
    }

    pub fn url(&self) -> String {
        self.setting("AMQP_URL")
    }

    /// Messages of a queue, also those that a consumer holds: exact.
    pub async fn messages(&self, queue: &str) -> u64 {
        let listed = self.ctl(&["list_queues", "-p", "registrar", "name", "messages"]).await;
        let mut counts = listed.lines().filter_map(|line| line.split_once('\t'));
        let count = counts.find_map(|(name, count)| (name == queue).then(|| count.trim().parse().ok())?);
        count.unwrap_or_else(|| panic!("{queue} is not among {listed}"))
    }

    /// Has the names of new quorum queues written down: RabbitMQ 3.10 does so lazily, and killed sooner it forgets them.
    pub async fn remember_queues(&self) {
        self.ctl(&["eval", "[ok = dets:sync(Table) || Table <- dets:all()]."]).await;
    }

    /// SIGKILL; returns when it is dead.
    pub async fn kill(&self) {
        self.services(&["kill", "rabbitmq"]).await;
    }

    /// Starts it again on the same data, and waits until it answers.
    pub async fn restart(&self) {
        self.services(&["up", "rabbitmq"]).await;
    }

    /// `rabbitmqctl`; answers what it prints.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        self.services(&[&["ctl"], arguments].concat()).await
    }

    async fn services(&self, arguments: &[&str]) -> String {
        let mut command = self.script("services");
        command.args(arguments);
        tokio::task::spawn_blocking(move || run(&mut command)).await.expect("the script ran")
    }

    fn setting(&self, name: &str) -> String {
        let settings = run(&mut self.script("env"));
        let line = settings.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
        line.expect("the instance is up").trim_matches(['\'', '"']).to_owned()
    }

    /// Ends it, if it runs, and removes its data: a run that failed leaves messages. Deleting vhosts is no way out: with
    /// their quorum queues RabbitMQ 3.10 then refuses new ones.
    fn end(&self) {
        let known = self.script("env").output().is_ok_and(|output| output.status.success());
        if !known {
            return;
        }
        run(self.script("services").args(["down", "rabbitmq"]));
        let data = Path::new(&self.setting("REGISTRAR_DATA_DIR")).join("rabbitmq/mnesia");
        std::fs::remove_dir_all(data).ok();
    }

    fn script(&self, name: &str) -> Command {
        let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local").join(name);
        let mut command = Command::new(path);
        command.env("REGISTRAR_INSTANCE", self.instance).stdin(Stdio::null());
        command
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the scripts of deploy/local run");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("plain text")
}
